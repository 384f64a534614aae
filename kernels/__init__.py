"""The project's own operators: NumPy definitions and the case table that drives test and bench.

Not here: the native kernels (`reward_head*.cc`, built into the csrm library) and their ONNX Runtime
registration (`ort_*.cc`). `csrm.kernels.one_node` builds models of one operator (needs `onnx`).
"""

from csrm.kernels.cases import CASES, RewardHeadCase, RewardHeadInputs
from csrm.kernels.reference import reward_head

__all__ = ["CASES", "RewardHeadCase", "RewardHeadInputs", "reward_head"]
