"""The project's own operators: NumPy definitions and the case tables that drive test and bench.

Not here: the native kernels (one `.h` and some `.cc` files each, built into the csrm library)
and their ONNX Runtime registration (`ort_*.cc`). `csrm.kernels.one_node` builds models of one
operator, `csrm.kernels.encoder_i8_models` those of EncoderI8 (both need `onnx`).
"""

from csrm.kernels.cases import CASES, RewardHeadCase, RewardHeadInputs
from csrm.kernels.cases_add_norm import ADD_NORM_CASES, AddNormCase, AddNormInputs
from csrm.kernels.cases_attention import ATTENTION_CASES, AttentionCase, AttentionInputs
from csrm.kernels.cases_encoder_i8 import ENCODER_I8_CASES, EncoderI8Case, EncoderI8Inputs
from csrm.kernels.cases_half_key_value import HALF_KEY_VALUE_CASES, HalfKeyValueCase
from csrm.kernels.cases_keys_values import KEYS_VALUES_CASES, KeysValuesCase
from csrm.kernels.cases_linear import LINEAR_CASES, LinearCase, LinearInputs
from csrm.kernels.cases_linear_i8 import LINEAR_I8_CASES, LinearI8Case
from csrm.kernels.cases_rope import ROPE_CASES, RopeCase, RopeInputs
from csrm.kernels.cases_swiglu import SWIGLU_CASES, SwiGluCase, SwiGluInputs
from csrm.kernels.reference import (
    add_norm,
    encoder_i8,
    half_key_value,
    keys_values,
    linear,
    linear_i8,
    prefix_attention,
    reward_head,
    rope,
    swiglu,
)

__all__ = [
    "ADD_NORM_CASES",
    "ATTENTION_CASES",
    "CASES",
    "ENCODER_I8_CASES",
    "HALF_KEY_VALUE_CASES",
    "KEYS_VALUES_CASES",
    "LINEAR_CASES",
    "LINEAR_I8_CASES",
    "ROPE_CASES",
    "SWIGLU_CASES",
    "AddNormCase",
    "AddNormInputs",
    "AttentionCase",
    "AttentionInputs",
    "EncoderI8Case",
    "EncoderI8Inputs",
    "HalfKeyValueCase",
    "KeysValuesCase",
    "LinearCase",
    "LinearI8Case",
    "LinearInputs",
    "RewardHeadCase",
    "RewardHeadInputs",
    "RopeCase",
    "RopeInputs",
    "SwiGluCase",
    "SwiGluInputs",
    "add_norm",
    "encoder_i8",
    "half_key_value",
    "keys_values",
    "linear",
    "linear_i8",
    "prefix_attention",
    "reward_head",
    "rope",
    "swiglu",
]
