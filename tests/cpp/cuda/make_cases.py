"""Writes tests/golden/kernel_cases.h: the case tables of csrm.kernels for the C++ checks of the
CUDA kernels. After a change of a table:
    python tests/cpp/cuda/make_cases.py > tests/golden/kernel_cases.h
Not: inputs, which the checks draw themselves. tests/python/test_cuda_cases.py compares file and
tables.
"""

from __future__ import annotations

from math import prod

from csrm.kernels.cases import CASES, RewardHeadCase
from csrm.kernels.cases_add_norm import ADD_NORM_CASES, AddNormCase
from csrm.kernels.cases_attention import ATTENTION_CASES, AttentionCase
from csrm.kernels.cases_keys_values import KEYS_VALUES_CASES, KeysValuesCase
from csrm.kernels.cases_rope import ROPE_CASES, RopeCase
from csrm.kernels.cases_swiglu import SWIGLU_CASES, SwiGluCase

VERSION = 2


def attention_row(case: AttentionCase) -> str:
    """One element of kAttentionCases."""
    numbers = (
        *(case.batch, case.queries, case.tokens, case.prefix),
        *(case.heads, case.kv_heads or case.heads, case.head_dim, case.layers, case.layer),
    )
    fused = _truth(not case.pooled)
    sight = f"Sight::k{case.sight.capitalize()}"
    return _element(case.name, *numbers, fused, sight, f"{float(case.loudness)}f")


def reward_head_row(case: RewardHeadCase) -> str:
    """One element of kRewardHeadCases."""
    numbers = (case.batch, case.tokens, case.pooled, case.hidden, case.verbalizers, case.n_safe)
    size, offset = {"zero": (0.0, 0.0), "huge": (1e15, 0.0), "offset": (1.0, 100.0)}.get(
        case.data, (1.0, 0.0)
    )
    pooling = f"Pooling::k{case.pooling.capitalize()}"
    floats = (f"{x}f" for x in (size, offset, case.logit_scale, case.epsilon, case.tolerance))
    return _element(case.name, *numbers, pooling, *floats, _truth(case.kind == "rms"))


def add_norm_row(case: AddNormCase) -> str:
    """One element of kAddNormCases."""
    floats = (f"{x}f" for x in (case.size, case.offset, case.epsilon, case.tolerance))
    kind = _truth(case.kind == "rms"), _truth(case.adds)
    return _element(case.name, prod(case.rows), case.columns, *floats, *kind)


def rope_row(case: RopeCase) -> str:
    """One element of kRopeCases."""
    numbers = (prod(case.rows), case.heads, case.head_dim, case.rest, case.most)
    floats = (f"{x}f" for x in (case.epsilon, case.tolerance))
    return _element(case.name, *numbers, _truth(case.has_norm), *floats)


def swiglu_row(case: SwiGluCase) -> str:
    """One element of kSwiGluCases."""
    floats = (f"{x}f" for x in (case.size, case.tolerance))
    return _element(case.name, prod(case.rows), case.columns, *floats)


def keys_values_row(case: KeysValuesCase) -> str:
    """One element of kKeysValuesCases."""
    numbers = (case.layers, case.batch, case.tokens, case.heads, case.kv_heads, case.head_dim)
    return _element(case.name, *numbers)


def text() -> str:
    """The whole file. Not the cases of a float16 prefix: the checks run each in every type."""
    tables = {
        "AttentionCase kAttentionCases": [
            attention_row(case) for case in ATTENTION_CASES if not (case.is_half or case.is_bf16)
        ],
        "RewardHeadCase kRewardHeadCases": [reward_head_row(case) for case in CASES],
        "AddNormCase kAddNormCases": [add_norm_row(case) for case in ADD_NORM_CASES],
        "RopeCase kRopeCases": [rope_row(case) for case in ROPE_CASES],
        "SwiGluCase kSwiGluCases": [swiglu_row(case) for case in SWIGLU_CASES],
        "KeysValuesCase kKeysValuesCases": [keys_values_row(case) for case in KEYS_VALUES_CASES],
    }
    lines = [
        f"// The case tables of csrm.kernels, version {VERSION}, written by",
        "// tests/cpp/cuda/make_cases.py; do not edit. Included by tests/cpp/cuda/cases.h, which",
        "// names the columns.",
        "// clang-format off",
    ]
    for declaration, rows in tables.items():
        lines += [f"constexpr {declaration}[] = {{", *rows, "};"]
    return "\n".join([*lines, "// clang-format on", ""])


def _truth(value: bool) -> str:
    return "true" if value else "false"


def _element(name: str, *fields: object) -> str:
    return f'    {{"{name}", ' + ", ".join(str(field) for field in fields) + "},"


if __name__ == "__main__":
    print(text(), end="")
