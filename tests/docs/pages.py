"""The project's pages, and what stands in them: links, code blocks, words in backticks."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_INLINE = re.compile(r"`([^`\n]+)`")
_INDENTED = re.compile(r"^    (\S.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, its language and its text."""

    page: str
    language: str
    text: str


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(language: str) -> list[Block]:
    return [
        Block(name(page), found[1], found[2])
        for page in PAGES
        for found in _FENCE.finditer(page.read_text(encoding="utf-8"))
        if found[1] == language
    ]


def links(page: Path) -> list[str]:
    return _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8")))


def anchors(page: Path) -> set[str]:
    """Return the places of a page that a link may name: headings as GitHub spells them, and explicit ids."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    found = set(re.findall(r'<a id="([^"]+)"', text))
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        words = re.sub(r"[^\w\- ]", "", heading.strip().lower())
        found.add(words.replace(" ", "-"))
    return found


def code(page: Path) -> Iterator[str]:
    """Return every piece of code of a page: fenced lines, indented lines, words in backticks."""
    text = page.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        yield from found[2].replace("\\\n", " ").splitlines()
    rest = _FENCE.sub("", text)
    yield from _INDENTED.findall(rest)
    yield from _INLINE.findall(rest)
