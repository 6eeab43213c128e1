"""Documented keys: production mode refuses every master key that a page shows."""

import re
from pathlib import Path

from cardwright.kit.secret_rules import key_fault

ROOT = Path(__file__).parents[2]
KEY = re.compile(r"(?<![0-9a-fA-F])[0-9a-fA-F]{64}(?![0-9a-fA-F])")


def test_documented_keys_are_refused() -> None:
    """Each text of 64 hexadecimal digits in README.md and docs/ is refused as a master key, and there is at least one."""
    pages = [
        *ROOT.glob("*.md"),
        *(path for path in (ROOT / "docs").rglob("*") if path.suffix in {".md", ".toml", ".json"}),
    ]
    shown = {key for page in pages for key in KEY.findall(page.read_text(encoding="utf-8"))}
    assert shown
    assert [key for key in sorted(shown) if key_fault(key) is None] == []
