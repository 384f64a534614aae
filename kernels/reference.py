"""The definition of every csrm operator, in NumPy float64. Not fast and not used at run time:
kernels are tested against it (tests/python/test_kernels.py and test_linear.py; cases in
csrm.kernels.cases and cases_linear).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64] | NDArray[np.float32]


def reward_head(
    hidden: Floats,
    pooled_at: NDArray[np.int64],
    norm_weight: Floats,
    norm_bias: Floats,
    rows: Floats,
    row_bias: Floats,
    calibration: Floats,
    *,
    n_safe: int,
    epsilon: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Reward and compliance, both float64 [B, J], of the pooled tokens; NaN where `pooled_at` < 0.

    hidden [B, T, H]; pooled_at [B, J]; norm_weight, norm_bias [H]; rows [V, H], the first `n_safe`
    of them the safe verbalizers; row_bias [V]; calibration [2] (a, b). The reward is
    logsumexp(safe logits) - logsumexp(unsafe logits) (arXiv 2605.30487, section 3).
    Errors: IndexError when an index is not below T.
    """
    batch = np.arange(hidden.shape[0])[:, None]
    x = hidden.astype(np.float64)[batch, np.maximum(pooled_at, 0)]  # [B, J, H]
    centred = x - x.mean(-1, keepdims=True)
    variance = (centred**2).mean(-1, keepdims=True)
    y = centred / np.sqrt(variance + epsilon) * norm_weight + norm_bias
    logits = y @ rows.astype(np.float64).T + row_bias  # [B, J, V]
    reward = np.logaddexp.reduce(logits[..., :n_safe], axis=-1)
    reward = reward - np.logaddexp.reduce(logits[..., n_safe:], axis=-1)
    reward = np.where(pooled_at < 0, np.nan, reward)
    margin = calibration[0] * reward + calibration[1]
    compliance = 0.5 * (1.0 + np.tanh(0.5 * margin))  # a sigmoid that cannot overflow
    return reward, compliance


def linear(
    x: Floats,
    weight: NDArray[np.int8] | Floats,
    scale: Floats | None,
    bias: Floats,
    *,
    activation: str = "none",
) -> NDArray[np.float64]:
    """f(x W + bias), float64 [..., N], of x [..., K].

    weight [K, N]: int8 with scale [N], one per output channel, or floats with scale None; bias [N].
    f is the identity ("none") or GELU by the error function ("gelu"). Errors: KeyError.
    """
    dense = weight.astype(np.float64)
    if scale is not None:
        # In fp32, as every engine unfolds it.
        dense = (weight.astype(np.float32) * scale.astype(np.float32)).astype(np.float64)
    result: NDArray[np.float64] = x.astype(np.float64) @ dense + bias
    return {"none": _identity, "gelu": _gelu}[activation](result)


def _identity(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x


def _gelu(x: NDArray[np.float64]) -> NDArray[np.float64]:
    erf = np.vectorize(math.erf, otypes=[np.float64])
    result: NDArray[np.float64] = x * (0.5 + 0.5 * erf(x / math.sqrt(2)))
    return result
