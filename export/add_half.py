"""Writes a copy of an artifact with the variant of csrm.export.half_graph added to it.

What it is: `python -m csrm.export.add_half ARTIFACT OUT`. No checkpoint is needed, and every other
file is the same, byte for byte. Not: the measurement of what the variant changes
(csrm.export.variant_parity); run that on OUT next.
"""

from __future__ import annotations

import sys
from pathlib import Path

from csrm.errors import BadArtifact
from csrm.export.artifact import FUSED, HALF, add_variant, read_json, write_half


def add_half(artifact: str | Path, out: str | Path) -> Path:
    """Writes `artifact` with the variant "half" into the folder `out`; the path of its manifest.

    Errors: BadArtifact for an artifact without a fused variant, BadArgument for an `out` that is
    the artifact itself.
    """
    variants = read_json(Path(artifact) / "manifest.json").get("variants")
    if isinstance(variants, dict) and variants.get("fused") != FUSED:
        raise BadArtifact("the artifact has no fused variant, whose graph the half variant is")
    return add_variant(artifact, out, "half", HALF, write_half)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m csrm.export.add_half ARTIFACT OUT")
    print(add_half(sys.argv[1], sys.argv[2]))
