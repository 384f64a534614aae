"""Times the cases of csrm.kernels.cases_encoder_i8 marked so, beside the chain of operators that
EncoderI8 stands for.

The row "chain" is LinearI8, PrefixAttention and AddNorm, one of each at a time, in the best version
that this CPU has, with standard operators between them. Not: these operators on their own
(csrm.bench.kernels_linear, csrm.bench.kernels_attention).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from csrm.bench.kernel_versions import timed, versions
from csrm.kernels import EncoderI8Case
from csrm.kernels.encoder_i8_models import encoder_chain_model, encoder_i8_model
from csrm.kernels.one_node import session

ROUNDS = 20
CHAIN = "chain"


def time_encoder_i8(
    case: EncoderI8Case, library: Path, threads: int, *, rounds: int = ROUNDS
) -> list[dict[str, Any]]:
    """Rows of one case: every version this CPU has and the chain, in one interleaved run.

    Row: kernel, case, isa, threads, us (median of a model of one encoder, with the call of the
    engine), faster (median over rounds of the chain's time over this one's), rounds.
    """
    inputs = case.inputs()
    tensors = inputs.tensors

    def model_of(isa: str) -> bytes:
        return encoder_i8_model(inputs, case.attributes, isa)

    actions = versions(model_of, tensors, library, threads, "pooled")
    chain = session(encoder_chain_model(inputs, case.attributes), library, n_threads=threads)
    actions[CHAIN] = partial(chain.run, ["pooled"], tensors)
    return timed("EncoderI8", case.name, actions, threads, rounds, 1, base=CHAIN)
