"""Writes a copy of an artifact with the variant of csrm.export.half_graph added to it.

What it is: `python -m csrm.export.add_half ARTIFACT OUT`. No checkpoint is needed, and every other
file is the same, byte for byte. Not: the measurement of what the variant changes
(csrm.export.variant_parity); run that on OUT next.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from csrm.errors import BadArgument, BadArtifact
from csrm.export.artifact import FUSED, HALF, describe, read_json, write_half


def add_half(artifact: str | Path, out: str | Path) -> Path:
    """Writes `artifact` with the variant "half" into the folder `out`; the path of its manifest.

    Errors: BadArtifact for an artifact without a fused variant, BadArgument for an `out` that is
    the artifact itself.
    """
    source, target = Path(artifact), Path(out)
    if target.resolve() == source.resolve():
        raise BadArgument("the artifact cannot be changed in place; name another folder")
    manifest = read_json(source / "manifest.json")
    files, variants = manifest.get("files"), manifest.get("variants")
    if not isinstance(files, dict) or not isinstance(variants, dict):
        raise BadArtifact("manifest.json lists no files; export the artifact again")
    if variants.get("fused") != FUSED:
        raise BadArtifact("the artifact has no fused variant, whose graph the half variant is")
    target.mkdir(parents=True, exist_ok=True)
    for name in files:
        shutil.copyfile(source / name, target / name)
    write_half(target)
    manifest.pop("half_parity", None)  # of another file
    variants["half"] = HALF
    files[HALF] = describe(target / HALF)
    path = target / "manifest.json"
    path.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    print(add_half(sys.argv[1], sys.argv[2]))
