"""The incomplete beta function and the bound of the dominance test."""

from __future__ import annotations

import pytest

from csrm.errors import BadArgument
from csrm.train.augment.clopper_pearson import lower_bound, regularised_beta


@pytest.mark.parametrize(("n", "most_misses"), [(59, 0), (100, 1), (150, 2), (200, 4)])
def test_lower_bound_known_sizes_allow_known_misses(n, most_misses):
    assert lower_bound(n - most_misses, n) > 0.95
    assert lower_bound(n - most_misses - 1, n) <= 0.95


def test_lower_bound_58_without_a_miss_does_not_pass():
    assert lower_bound(58, 58) <= 0.95


@pytest.mark.parametrize(
    ("hits", "n", "bound"), [(99, 100, 0.9534), (148, 150, 0.9586), (196, 200, 0.9548)]
)
def test_lower_bound_published_cases_agree(hits, n, bound):
    assert lower_bound(hits, n) == pytest.approx(bound, abs=5e-5)


@pytest.mark.parametrize("n", [1, 7, 59, 1000])
@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.5])
def test_lower_bound_no_miss_is_the_root_of_alpha(n, alpha):
    assert lower_bound(n, n, alpha) == pytest.approx(alpha ** (1 / n), rel=1e-12)


def test_lower_bound_no_hit_is_zero():
    assert lower_bound(0, 0) == lower_bound(0, 30) == 0


def test_lower_bound_every_small_count_agrees_with_scipy():
    stats = pytest.importorskip("scipy.stats")
    for n in (*range(1, 30), 500, 20_000):
        for hits in {1, 2, n // 3 + 1, n // 2 + 1, n - 1, n} & set(range(1, n + 1)):
            for alpha in (0.001, 0.05, 0.9):
                expected = stats.beta.ppf(alpha, hits, n - hits + 1)
                assert lower_bound(hits, n, alpha) == pytest.approx(expected, rel=1e-8)


def test_regularised_beta_grid_agrees_with_scipy():
    special = pytest.importorskip("scipy.special")
    for a in (0.3, 1, 2.5, 40, 900):
        for b in (0.7, 1, 8, 300):
            for x in (0, 1e-9, 0.02, 0.3, 0.5, 0.77, 0.999, 1):
                expected = special.betainc(a, b, x)
                assert regularised_beta(x, a, b) == pytest.approx(expected, rel=1e-9, abs=1e-14)


@pytest.mark.parametrize(
    ("hits", "n", "alpha"),
    [(-1, 3, 0.05), (4, 3, 0.05), (1, 3, 0), (1, 3, 1), (1, 3, float("nan"))],
)
def test_lower_bound_impossible_numbers_raise(hits, n, alpha):
    with pytest.raises(BadArgument):
        lower_bound(hits, n, alpha)


@pytest.mark.parametrize(("x", "a", "b"), [(-0.1, 1, 1), (1.1, 1, 1), (0.5, 0, 1), (0.5, 1, -1)])
def test_regularised_beta_outside_its_domain_raises(x, a, b):
    with pytest.raises(BadArgument):
        regularised_beta(x, a, b)
