"""`config_files`: which files of a folder are configs.

Not: reading them (csrm.config). Paths come from an operator's option, and go to `csrm serve` and to
csrm.integrations.rewards, so that a folder means the same configs to both.
"""

from __future__ import annotations

from pathlib import Path

SUFFIXES = (".yaml", ".yml", ".json", ".md", ".markdown", ".txt")


def config_files(place: Path) -> list[Path]:
    """The config files in the folder `place`, sorted, or `place` itself if it is no folder.

    Hidden files, a README and folders in it are left out. Errors: OSError.
    """
    if not place.is_dir():
        return [place]
    return sorted(
        path
        for path in place.iterdir()
        if path.suffix.lower() in SUFFIXES
        and not path.name.startswith(".")
        and path.stem.upper() != "README"
        and path.is_file()
    )
