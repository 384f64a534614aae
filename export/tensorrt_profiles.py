"""Optimisation profiles: for which sizes of a call a TensorRT engine is built.

What it is: (least, most usual, largest) of batch, tokens, prefix and judged tokens, the axes of
docs/datapath.md's signature. A call must fit one profile of its engine; within it any size runs,
and the usual ones are those that TensorRT optimises for. Not: the builder (csrm.export.tensorrt).
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, fields

from csrm.errors import BadArgument

Range = tuple[int, int, int]
_MOST = 2**20


@dataclass(frozen=True)
class Profile:
    """Least, usual and largest size of each axis; `prefix` may be 0 (a rule being encoded)."""

    batch: Range
    tokens: Range
    prefix: Range
    judged: Range

    def __post_init__(self) -> None:
        for field in fields(self):
            least, usual, largest = getattr(self, field.name)
            if not (0 if field.name == "prefix" else 1) <= least <= usual <= largest <= _MOST:
                raise BadArgument(
                    f"{field.name}={least}:{usual}:{largest} of a TensorRT profile must rise from "
                    f"1 (of prefix: 0) to at most {_MOST:,}"
                )

    def shapes(self, model: dict[str, int]) -> dict[str, tuple[tuple[int, ...], ...]]:
        """Least, usual and largest shape of every input; `model`: the manifest's object."""

        def rising(*sizes: Range | int) -> tuple[tuple[int, ...], ...]:
            return tuple(
                tuple(size if isinstance(size, int) else size[i] for size in sizes)
                for i in range(3)
            )

        rows = rising(self.batch, self.tokens)
        prefix = rising(model["layers"], model["kv_heads"], self.prefix, model["head_dim"])
        return {
            **dict.fromkeys(("input_ids", "position_ids", "segment_ids", "visible"), rows),
            "pooled_at": rising(self.batch, self.judged),
            **dict.fromkeys(("prefix_key", "prefix_value"), prefix),
        }

    def json(self) -> dict[str, list[int]]:
        """As the manifest holds it."""
        return {name: list(sizes) for name, sizes in asdict(self).items()}


# What the runtime asks for: one conversation under a cached config; several of them; rules and
# long conversations, whose blocks have up to 512 and rows up to 1024 tokens.
DEFAULT_PROFILES = (
    Profile(batch=(1, 1, 1), tokens=(1, 128, 1024), prefix=(0, 256, 4096), judged=(1, 1, 32)),
    Profile(batch=(1, 8, 64), tokens=(1, 128, 256), prefix=(0, 256, 2048), judged=(1, 1, 8)),
    Profile(batch=(1, 4, 8), tokens=(1, 512, 1024), prefix=(0, 1024, 16384), judged=(1, 1, 32)),
)

_PART = re.compile(r"(batch|tokens|prefix|judged)=(\d{1,7})(?::(\d{1,7}):(\d{1,7}))?")


def parse_profile(text: str) -> Profile:
    """The Profile of "batch=1:8:64 tokens=1:128:256 prefix=0:256:2048 judged=1".

    One number stands for all three. Errors: BadArgument for an axis that is unknown, missing or
    given twice, and for sizes that fall.
    """
    sizes: dict[str, Range] = {}
    for part in text.split():
        found = _PART.fullmatch(part)
        if found is None or found[1] in sizes:
            raise BadArgument(
                "a TensorRT profile names batch, tokens, prefix and judged once each, as in "
                "batch=1:8:64 (least, usual, largest)"
            )
        least = int(found[2])
        sizes[found[1]] = (least, int(found[3] or least), int(found[4] or least))
    missing = [field.name for field in fields(Profile) if field.name not in sizes]
    if missing:
        raise BadArgument(f"the TensorRT profile lacks {', '.join(missing)}")
    return Profile(**sizes)
