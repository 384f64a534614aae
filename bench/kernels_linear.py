"""Times the cases of csrm.kernels.cases_linear marked so, beside the engine's own operators.

A model of several layers runs in ONNX Runtime, each with weights of its own and together
larger than a cache, so that weights come from memory as in a model. The row "engine" is the same
in ONNX's MatMul, Add and Gelu with every optimisation of the engine. Not: RewardHead
(csrm.bench.kernels).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from csrm.bench.kernel_versions import ENGINE, add_rates, in_engine, timed, versions
from csrm.kernels import LinearCase
from csrm.kernels.one_node import linear_model

N_WEIGHTS = 10_000_000  # of all layers of a model, as many as MiniLM-L6 has: 10 MB as int8
ROUNDS = 20


def time_linear(
    case: LinearCase, library: Path, threads: int, peak: float, *, rounds: int = ROUNDS
) -> list[dict[str, Any]]:
    """Rows of one case: every version this CPU has and the engine, in one interleaved run.

    peak: FLOP/s measured on as many threads. Row: kernel, case, isa, threads, us (median of one
    layer), gflop_s, of_peak, faster (median over rounds of the engine's time over this one's),
    rounds.
    """
    inputs = case.inputs()
    n_copies = max(2, N_WEIGHTS // (case.n_in * case.n_out))
    tensors = {"x": inputs.x}

    def model_of(isa: str) -> bytes:
        return linear_model(inputs, case.activation, isa, n_copies)

    actions = versions(model_of, tensors, library, threads, "y")
    model = linear_model(inputs, case.activation, "", n_copies, engine=True)
    actions[ENGINE] = in_engine(model, tensors, threads)
    rows = timed("Linear", case.name, actions, threads, rounds, n_copies)
    add_rates(rows, 2 * case.n_rows * case.n_in * case.n_out, peak)
    return rows
