"""Writes a copy of an artifact with the variant of csrm.export.int8_graph added to it.

What it is: `python -m csrm.export.add_int8 ARTIFACT OUT`. No checkpoint is needed, and every other
file is the same, byte for byte. Not: the measurement of what the variant changes
(csrm.export.variant_parity); run that on OUT next.
"""

from __future__ import annotations

import sys
from pathlib import Path

from csrm.errors import BadArtifact
from csrm.export.artifact import FUSED, INT8, add_variant, read_json, write_int8


def add_int8(artifact: str | Path, out: str | Path) -> Path:
    """Writes `artifact` with the variant "int8" into the folder `out`; the path of its manifest.

    Errors: BadArtifact for an artifact without a fused variant or with weights that are not int8,
    BadArgument for an `out` that is the artifact itself.
    """
    variants = read_json(Path(artifact) / "manifest.json").get("variants")
    if isinstance(variants, dict) and variants.get("fused") != FUSED:
        raise BadArtifact("the artifact has no fused variant, whose graph the int8 variant is")
    return add_variant(artifact, out, "int8", INT8, write_int8)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m csrm.export.add_int8 ARTIFACT OUT")
    print(add_int8(sys.argv[1], sys.argv[2]))
