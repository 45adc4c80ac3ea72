"""The Markdown that people read: README.md, CONTRIBUTING.md, CHANGELOG.md and everything below docs/."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
TEXTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in PAGES}
"""Page -> its Markdown."""

FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)


def code_spans(text: str) -> list[str]:
    """What stands in backticks, outside of fences."""
    return re.findall(r"`([^`\n]+)`", FENCE.sub("", text))


def command_lines(text: str) -> list[str]:
    """The lines of shell fences, continuations joined, without comments; and code spans, which may be commands too."""
    fenced = "\n".join(body.replace("\\\n", " ") for language, body in FENCE.findall(text) if language == "sh")
    return [line.split("  #")[0].split(" # ")[0].strip() for line in fenced.splitlines()] + code_spans(text)
