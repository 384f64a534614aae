"""The project's own operators: NumPy definitions and the case tables that drive test and bench.

Not here: the native kernels (`reward_head*.cc`, `linear*.cc`, built into the csrm library) and
their ONNX Runtime registration (`ort_*.cc`). `csrm.kernels.one_node` builds models of one operator
(needs `onnx`).
"""

from csrm.kernels.cases import CASES, RewardHeadCase, RewardHeadInputs
from csrm.kernels.cases_linear import LINEAR_CASES, LinearCase, LinearInputs
from csrm.kernels.reference import linear, reward_head

__all__ = [
    "CASES",
    "LINEAR_CASES",
    "LinearCase",
    "LinearInputs",
    "RewardHeadCase",
    "RewardHeadInputs",
    "linear",
    "reward_head",
]
