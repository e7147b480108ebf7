"""`docs/protocol.md` against the code."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_error_code_in_the_docs_exists() -> None:
    """A client may test for each code that the page names: some code sends it."""
    page = (ROOT / "docs" / "protocol.md").read_text().split("## Errors")[1]
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    codes = {code for row in rows for code in re.findall(r"`([a-z_]+)`", row.split("|")[1])}
    assert len(codes) > 30
    source = "".join(path.read_text() for path in (ROOT / "wsavatar").rglob("*.py"))
    assert {code for code in codes if f'"{code}"' not in source} == set()
