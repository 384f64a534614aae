"""Writes tests/golden/kernel_cases.h: the case tables of csrm.kernels for the C++ checks of the
CUDA kernels. After a change of a table:
    python tests/cpp/cuda/make_cases.py > tests/golden/kernel_cases.h
Not: inputs, which the checks draw themselves, or cases of RMSNorm and of nothing added, which the
CUDA kernels do not have. tests/python/test_cuda_cases.py compares file and tables.
"""

from __future__ import annotations

from csrm.kernels.cases import CASES, RewardHeadCase
from csrm.kernels.cases_add_norm import ADD_NORM_CASES, AddNormCase
from csrm.kernels.cases_attention import ATTENTION_CASES, AttentionCase

VERSION = 1


def attention_row(case: AttentionCase) -> str:
    """One element of kAttentionCases."""
    numbers = (
        *(case.batch, case.queries, case.tokens, case.prefix),
        *(case.heads, case.kv_heads or case.heads, case.head_dim, case.layers, case.layer),
    )
    fused = "false" if case.pooled else "true"
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
    return _element(case.name, *numbers, pooling, *floats)


def add_norm_row(case: AddNormCase) -> str:
    """One element of kAddNormCases."""
    rows = 1
    for n in case.rows:
        rows *= n
    floats = (f"{x}f" for x in (case.size, case.offset, case.epsilon, case.tolerance))
    return _element(case.name, rows, case.columns, *floats)


def text() -> str:
    """The whole file. Not the cases of a float16 prefix: the checks run each in every type."""
    tables = {
        "AttentionCase kAttentionCases": [
            attention_row(case) for case in ATTENTION_CASES if not case.is_half
        ],
        "RewardHeadCase kRewardHeadCases": [
            reward_head_row(case) for case in CASES if case.kind == "layer"
        ],
        "AddNormCase kAddNormCases": [
            add_norm_row(case) for case in ADD_NORM_CASES if case.kind == "layer" and case.adds
        ],
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


def _element(name: str, *fields: object) -> str:
    return f'    {{"{name}", ' + ", ".join(str(field) for field in fields) + "},"


if __name__ == "__main__":
    print(text(), end="")
