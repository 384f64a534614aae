"""The code of a page in docs/integrations, so that tests run what users copy."""

from __future__ import annotations

import re

from csrm_server import REPOSITORY


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of `page` ("nemo") in `language`, in order."""
    text = (REPOSITORY / "docs" / "integrations" / f"{page}.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
