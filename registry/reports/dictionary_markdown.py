"""Data dictionary as Markdown (GitHub's tables), for a repository. Pure.

Text of a schema is untrusted: pipes, line ends, angle brackets and every character with a meaning in Markdown are
escaped, so that a label cannot open a link or a tag in a viewer.
"""

import re
from collections.abc import Iterator, Sequence

from registry.reports.dictionary import LEVELS, MASKS, PERSONAL, SENSITIVE, WORDS, FieldRow, Language, RecordSheet

__all__ = ["to_markdown"]

_COLUMNS = ("field", "label", "type", "required", "level", "personal", "sensitive", "mask", "notes")
_MARKS = re.compile(r"([\\`*_{}\[\]<>#|!~&])")


def to_markdown(sheets: Sequence[RecordSheet], *, language: Language = Language.BOTH, title: str = "") -> str:
    """Return the text.

    Args:
        sheets: the record types, in the order of the page.
        language: of the terms that the page adds.
        title: of the page; "" for the default.
    """
    say = language.of
    lines = [f"# {_text(title) if title else say(WORDS['title'])}", ""]
    for one in sheets:
        lines += [*_sheet(one, language), ""]
    lines += [f"## {say(WORDS['legend'])}", "", f"? = {say(WORDS['nullable'])}", ""]
    for name, words in (("level", LEVELS), ("personal", PERSONAL), ("sensitive", SENSITIVE), ("mask", MASKS)):
        lines += [
            *_table((say(WORDS[name]), say(WORDS["meaning"])), ((f"`{key}`", say(words[key])) for key in words)),
            "",
        ]
    return "\n".join(lines).rstrip() + "\n"


def _sheet(one: RecordSheet, language: Language) -> Iterator[str]:
    say = language.of
    nothing = say(WORDS["none"])
    yield f"## {_text(one.zh or one.fullname)} {_code(one.fullname)}"
    yield ""
    if one.doc:
        yield _text(one.doc)
        yield ""
    level = f"{one.level.name} {say(LEVELS[one.level.name])}" if one.level else nothing
    yield f"* {say(WORDS['key'])}: {_codes(one.key) or nothing}"
    yield f"* {say(WORDS['highest'])}: {level}"
    yield f"* {say(WORDS['direct'])}: {_codes(one.direct) or nothing}"
    yield f"* {say(WORDS['sensitive_fields'])}: {_codes(one.sensitive) or nothing}"
    yield from (f"* {_text(name)}: {_text(text)}" for name, text in one.facts)
    yield ""
    yield from _table([say(WORDS[name]) for name in _COLUMNS], (_row(row, language) for row in one.rows))


def _row(row: FieldRow, language: Language) -> Sequence[str]:
    say = language.of
    key = f" ({say(WORDS['key_mark'])})" if row.key else ""
    notes = [_text(row.doc)] if row.doc else []
    notes += [f"{say(WORDS[name])}: {_text(text)}" for name, text in row.facts]
    return (
        _code(row.path) + key,
        _text(row.zh),
        _text(say((row.type_zh, row.type_en))),
        say(WORDS["yes" if row.required else "no"]),
        row.level or say(WORDS["unclassified"]),
        *(say(words[code]) if code in words else "" for code, words in _coded(row)),
        "; ".join(notes),
    )


def _coded(row: FieldRow) -> tuple[tuple[str, dict[str, tuple[str, str]]], ...]:
    return (row.personal, dict(PERSONAL)), (row.sensitive, dict(SENSITIVE)), (row.mask, dict(MASKS))


def _table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def _text(text: str) -> str:
    return _MARKS.sub(r"\\\1", " ".join(text.split()))


def _code(text: str) -> str:
    # A name of a valid schema holds letters, digits, _ and dots alone; anything else is shown as text.
    return f"`{text}`" if re.fullmatch(r"[\w.]+", text) else _text(text)


def _codes(names: Sequence[str]) -> str:
    return ", ".join(map(_code, names))
