"""RewardHead through ONNX Runtime against its NumPy definition: every case, every version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as engine_errors

from csrm.kernels import CASES, RewardHeadCase, reward_head
from csrm.kernels.one_node import feeds, operator_model, reward_head_model, session

ENGINE_ERRORS = (engine_errors.InvalidArgument, engine_errors.RuntimeException)
BY_NAME = {case.name: case for case in CASES}


def run(
    case: RewardHeadCase, library: Path, isa: str = "", **changed: Any
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    model = reward_head_model(case.n_safe, case.epsilon, isa, kind=case.kind)
    reward, compliance = session(model, library).run(None, {**feeds(case), **changed})
    return reward, compliance


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_reward_head_case_matches_definition(case: RewardHeadCase, isa: str, library: Path) -> None:
    reward, compliance = run(case, library, isa)
    attributes = {"n_safe": case.n_safe, "epsilon": case.epsilon, "kind": case.kind}
    expected = reward_head(**vars(case.inputs()), **attributes)  # type: ignore[arg-type]
    assert reward.dtype == compliance.dtype == np.float32
    for actual, wanted in zip((reward, compliance), expected, strict=True):
        np.testing.assert_allclose(
            actual, wanted, rtol=0, atol=case.tolerance, equal_nan=True, err_msg=case.reason
        )


def test_reward_head_minus_one_gives_nan_only_there(isa: str, library: Path) -> None:
    case = BY_NAME["minilm_agent"]
    absent = case.inputs().pooled_at < 0
    assert 0 < absent.sum() < absent.size
    for output in run(case, library, isa):
        np.testing.assert_array_equal(np.isnan(output), absent)


@pytest.mark.parametrize("name", ["one_past_vector", "rms_odd"])
def test_reward_head_any_batch_or_position_gives_equal_bits(
    name: str, isa: str, library: Path
) -> None:
    """One token scored alone, in a full batch, and in every column must agree to the bit."""
    case = BY_NAME[name]
    inputs = case.inputs()
    pooled_at = np.arange(case.tokens)[None].repeat(case.batch, 0)
    whole = run(case, library, isa, pooled_at=pooled_at)
    reversed_ = run(case, library, isa, pooled_at=np.ascontiguousarray(pooled_at[:, ::-1]))
    for b in range(case.batch):
        for t in range(case.tokens):
            token = np.ascontiguousarray(inputs.hidden[b : b + 1, t : t + 1])
            alone = run(case, library, isa, hidden=token, pooled_at=np.zeros((1, 1), np.int64))
            for output in range(2):
                assert alone[output][0, 0] == whole[output][b, t]
                assert alone[output][0, 0] == reversed_[output][b, case.tokens - 1 - t]


def test_reward_head_non_finite_state_stays_non_finite(isa: str, library: Path) -> None:
    case = BY_NAME["paper_verbalizers"]
    inputs = case.inputs()
    inputs.hidden[0, inputs.pooled_at[0, 0], 3] = np.nan
    reward, compliance = run(case, library, isa, hidden=inputs.hidden)
    assert np.isnan([reward[0, 0], compliance[0, 0]]).all()
    assert np.isfinite(reward[1:]).all()


@pytest.mark.parametrize("index", [16, 2**40, np.iinfo(np.int64).max])
def test_reward_head_index_beyond_row_is_engine_error(index: int, library: Path) -> None:
    case = BY_NAME["one_past_vector"]
    pooled_at = case.inputs().pooled_at
    pooled_at[1, 1] = index
    with pytest.raises(ENGINE_ERRORS, match=r"pooled_at\[1, 1\] is \d+; rows have 16 tokens"):
        run(case, library, pooled_at=pooled_at)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"norm_weight": np.ones(3, np.float32)}, "norm_weight has 3 along axis 0; H is 384"),
        ({"row_bias": np.ones(5, np.float32)}, "row_bias has 5 along axis 0; V is 2"),
        ({"rows": np.ones((65, 384), np.float32), "row_bias": np.ones(65, np.float32)}, "65 verb"),
    ],
)
def test_reward_head_wrong_shape_is_engine_error(
    changed: dict[str, Any], message: str, library: Path
) -> None:
    case = BY_NAME["minilm_one"]
    with pytest.raises(ENGINE_ERRORS, match=message):
        run(case, library, **changed)


@pytest.mark.parametrize("n_safe", [-1, 0, 2])
def test_reward_head_n_safe_without_a_side_is_engine_error(n_safe: int, library: Path) -> None:
    case = BY_NAME["minilm_one"]
    model = reward_head_model(n_safe, case.epsilon)
    with pytest.raises(ENGINE_ERRORS, match=f"n_safe is {n_safe}"):
        session(model, library).run(None, feeds(case))


def test_reward_head_rms_with_a_bias_is_engine_error(library: Path) -> None:
    tensors = feeds(BY_NAME["minilm_one"])
    attributes = {"n_safe": 1, "epsilon": 1e-5, "kind": "rms"}
    model = operator_model("RewardHead", tensors, attributes, outputs=("reward", "compliance"))
    with pytest.raises(ENGINE_ERRORS, match="RewardHead: LayerNorm needs norm_bias and RMSNorm"):
        session(model, library).run(None, tensors)


def test_reward_head_unknown_isa_is_engine_error(library: Path) -> None:
    with pytest.raises(ENGINE_ERRORS, match="attribute isa"):
        session(reward_head_model(1, 1e-5, "sse9"), library)


def test_reward_head_two_sessions_share_the_domain(library: Path) -> None:
    """The operator's domain outlives any one session."""
    case = BY_NAME["minilm_one"]
    first = session(reward_head_model(case.n_safe, case.epsilon), library)
    second = session(reward_head_model(case.n_safe, case.epsilon), library)
    del first
    assert isinstance(second, onnxruntime.InferenceSession)
    assert np.isfinite(second.run(None, feeds(case))[0]).all()
