"""Files of an artifact that exists: read and verified, copied, one more added. All at once or not.

What it is: what changes a finished artifact (csrm.export.tensorrt) reads and writes through. Not:
the first writing of an artifact (csrm.export.artifact), and no model: nothing here needs PyTorch.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from csrm.errors import BadArgument, BadArtifact, DigestMismatch

MANIFEST = "manifest.json"
ENGINES = "tensorrt"
SAME = ("package", "precision", "architectures")


def is_artifact(folder: Path) -> bool:
    """Whether the folder has a manifest.json."""
    return (folder / MANIFEST).is_file()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an artifact. Errors: BadArtifact."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        files, sizes = manifest["files"], manifest["model"]
        good = isinstance(files, dict) and all(
            isinstance(sizes[name], int) for name in ("layers", "kv_heads", "head_dim")
        )
        for name in files:
            good = good and Path(name).name == name and name not in (MANIFEST, "..")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadArtifact(
            f"manifest.json of the artifact cannot be read: {type(error).__name__}"
        ) from error
    if not good or not isinstance(manifest.get(ENGINES, []), list):
        raise BadArtifact("manifest.json of the artifact is malformed; export it again")
    return dict(manifest)


def read_listed(folder: Path, manifest: dict[str, Any], name: str) -> bytes:
    """The bytes of a file that the manifest lists. Errors: BadArtifact, DigestMismatch."""
    try:
        data = (folder / name).read_bytes()
        expected = manifest["files"][name]["sha256"]
    except (OSError, KeyError, TypeError) as error:
        raise BadArtifact(
            f"a file of the artifact cannot be read: {type(error).__name__}"
        ) from error
    if hashlib.sha256(data).hexdigest() != expected:
        raise DigestMismatch(
            f"artifact file {name} differs from its sha256 in manifest.json; copy the artifact "
            "again and distrust its source"
        )
    return data


def copy_artifact(source: Path, manifest: dict[str, Any], target: Path) -> None:
    """Copies every listed file, verified. The manifest is not: `add_file` writes it last.

    Errors: BadArtifact, DigestMismatch, BadArgument when `target` cannot be written or holds
    another artifact.
    """
    if is_artifact(target):
        raise BadArgument("the folder to write to is an artifact already; name a new one")
    for name in manifest["files"]:
        replace(target / name, read_listed(source, manifest, name))


def add_file(folder: Path, manifest: dict[str, Any], engine: bytes, entry: dict[str, Any]) -> Path:
    """Writes `engine` and the manifest that lists it as `entry`; the path of the engine.

    An entry for the same package, precision and architectures goes, and its file with it.
    """
    kept: list[dict[str, Any]] = []
    gone: list[dict[str, Any]] = []
    for other in manifest.get(ENGINES, []):
        is_same = all(other.get(name) == entry[name] for name in SAME)
        (gone if is_same else kept).append(other)
    files = {
        name: facts
        for name, facts in manifest["files"].items()
        if name not in [other.get("file") for other in gone]
    }
    path = folder / str(entry["file"])
    files[path.name] = {"sha256": hashlib.sha256(engine).hexdigest(), "bytes": len(engine)}
    changed = {**manifest, "files": files, ENGINES: [*kept, entry]}
    replace(path, engine)
    replace(folder / MANIFEST, (json.dumps(changed, indent=1) + "\n").encode())
    for name in manifest["files"].keys() - files.keys():
        (folder / name).unlink(missing_ok=True)
    return path


def replace(path: Path, data: bytes) -> None:
    """Writes a file that is never seen half written. Errors: BadArgument."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise BadArgument(f"{path.name} cannot be written: {type(error).__name__}") from error
