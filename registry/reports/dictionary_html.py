"""Data dictionary as one self-contained HTML page: no script, no font and no image from elsewhere. Pure.

It is read on a screen, printed, and sent by mail, so what matters is said in text and never by colour alone, tables
repeat their heads on each printed page, and a wide table scrolls within itself on a narrow screen. All text of a
schema passes `html.escape`. The page also forbids itself scripts (Content-Security-Policy), in case it is opened from
a share.
"""

from collections.abc import Mapping, Sequence
from html import escape

from registry.reports.dictionary import LEVELS, MASKS, PERSONAL, SENSITIVE, WORDS, FieldRow, Language, RecordSheet

__all__ = ["to_html"]

_STYLE = """
:root { --ink: #1b1f24; --soft: #59626d; --line: #d5dae0; --band: #f5f7f9; --head: #0b3d66; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem clamp(1rem, 4vw, 3rem); max-width: 92rem; color: var(--ink); background: #fff;
  font: 15px/1.55 "Noto Sans CJK SC", "Source Han Sans SC", "PingFang SC", "Microsoft YaHei", system-ui, sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 1.2rem; color: var(--head); }
h2 { font-size: 1.3rem; margin: 2.6rem 0 .3rem; color: var(--head); }
h3 { font-size: 1.05rem; margin: 2.4rem 0 .6rem; }
code { font-family: "JetBrains Mono", "SFMono-Regular", Menlo, Consolas, "Noto Sans Mono CJK SC", monospace;
  font-size: .92em; overflow-wrap: anywhere; }
nav ol { padding-left: 1.4rem; } nav li { margin: .15rem 0; } a { color: #0b57a4; }
.full { color: var(--soft); font-weight: 400; margin-left: .5rem; } .doc { margin: .2rem 0 .8rem; }
dl { display: flex; flex-wrap: wrap; gap: .5rem 2rem; margin: .6rem 0 1rem; padding: .7rem 1rem;
  background: var(--band);  border-left: 4px solid var(--head); } dl div { max-width: 44rem; }
dt { color: var(--soft); font-size: .85rem; } dd { margin: 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .93rem; }
th, td { text-align: left; vertical-align: top; padding: .42rem .6rem; border-bottom: 1px solid var(--line); }
thead th { background: var(--head); color: #fff; font-weight: 600; white-space: nowrap; }
tbody tr:nth-child(even) { background: var(--band); }
td.name { white-space: nowrap; } td.label { min-width: 6.5rem; }
td.mark { white-space: nowrap; } td.notes { min-width: 15rem; max-width: 34rem; }
.in { color: var(--soft); } .en { color: var(--soft); font-size: .87em; display: block; }
.key { font-size: .78rem; border: 1px solid var(--head); color: var(--head); border-radius: 3px; padding: 0 .3rem;
  margin-left: .4rem; }
.level { display: inline-block; min-width: 2.6rem; text-align: center; border-radius: 3px; padding: 0 .4rem;
  font-weight: 600; border: 1px solid transparent; }
.G1 { background: #e6f4ea; color: #14532d; } .G2 { background: #e7f0fb; color: #173f73; }
.G3 { background: #fff3d1; color: #5c4300; } .G4 { background: #fde0d2; color: #7a2600; }
.IMP { background: #7f1d1d; color: #fff; } .level.unknown { border-color: var(--line); color: var(--soft); }
td.D, td.S { font-weight: 600; }
.fact { display: block; color: var(--soft); } .fact b { color: var(--ink); font-weight: 400; }
.legend { display: grid; grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr)); gap: 1.4rem 2rem; }
.legend table { font-size: .88rem; }
footer { margin-top: 2.5rem; color: var(--soft); font-size: .85rem; }
@media print { body { padding: 0; max-width: none; font-size: 10pt; } thead { display: table-header-group; }
  tr, dl { break-inside: avoid; } h2 { break-after: avoid; } .sheet + .sheet { break-before: page; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } .wide { overflow: visible; } }
"""
_COLUMNS = ("field", "label", "type", "required", "level", "personal", "sensitive", "mask", "notes")


def to_html(sheets: Sequence[RecordSheet], *, language: Language = Language.BOTH, title: str = "") -> str:
    """Return the page.

    Args:
        sheets: the record types, in the order of the page.
        language: of the terms that the page adds; labels and descriptions are shown as written.
        title: of the page; "" for the default.
    """
    say = language.of
    heading = escape(title or say(WORDS["title"]))
    parts = [
        "<!doctype html>",
        f'<html lang="{"en" if language is Language.EN else "zh-CN"}">',
        '<head><meta charset="utf-8">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{heading}</title><style>{_STYLE}</style></head>",
        f"<body><h1>{heading}</h1>",
    ]
    if len(sheets) > 1:
        items = "".join(
            f'<li><a href="#{_anchor(number)}">{escape(one.zh or one.fullname)}</a> '
            f'<code class="full">{escape(one.fullname)}</code></li>'
            for number, one in enumerate(sheets)
        )
        parts.append(f"<nav><h3>{escape(say(WORDS['contents']))}</h3><ol>{items}</ol></nav>")
    parts += [_sheet(one, number, language) for number, one in enumerate(sheets)]
    parts += [_legend(language), "</body></html>"]
    return "\n".join(parts) + "\n"


def _anchor(number: int) -> str:
    return f"record-{number + 1}"


def _sheet(one: RecordSheet, number: int, language: Language) -> str:
    say = language.of
    head = "".join(f"<th>{escape(say(WORDS[name]))}</th>" for name in _COLUMNS)
    rows = "\n".join(_row(row, language) for row in one.rows)
    doc = f'<p class="doc">{escape(one.doc)}</p>' if one.doc else ""
    return (
        f'<section class="sheet" id="{_anchor(number)}"><h2>{escape(one.zh or one.fullname)}'
        f'<code class="full">{escape(one.fullname)}</code></h2>{doc}{_facts(one, language)}'
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>\n{rows}\n</tbody></table></div></section>'
    )


def _facts(one: RecordSheet, language: Language) -> str:
    say = language.of
    nothing = say(WORDS["none"])
    level = (
        f"{_level(one.level.name, language)} {escape(say(LEVELS[one.level.name]))}" if one.level else escape(nothing)
    )
    pairs = [
        (say(WORDS["key"]), _codes(one.key) or escape(nothing)),
        (say(WORDS["fields"]), str(len(one.rows))),
        (say(WORDS["highest"]), level),
        (say(WORDS["direct"]), _codes(one.direct) or escape(nothing)),
        (say(WORDS["sensitive_fields"]), _codes(one.sensitive) or escape(nothing)),
        *((name, escape(text)) for name, text in one.facts),
    ]
    if one.origin:
        pairs.append((say(WORDS["origin"]), f"<code>{escape(one.origin)}</code>"))
    return "<dl>" + "".join(f"<div><dt>{escape(name)}</dt><dd>{text}</dd></div>" for name, text in pairs) + "</dl>"


def _row(row: FieldRow, language: Language) -> str:
    say = language.of
    parent = row.path[: len(row.path) - len(row.name)]
    key = f'<span class="key">{escape(say(WORDS["key_mark"]))}</span>' if row.key else ""
    cells = [
        f'<td class="name"><code><span class="in">{escape(parent)}</span>{escape(row.name)}</code>{key}</td>',
        f'<td class="label">{escape(row.zh)}</td>',
        f"<td>{_both(row.type_zh, row.type_en, language)}</td>",
        f'<td class="mark">{escape(say(WORDS["yes" if row.required else "no"]))}</td>',
        f'<td class="mark">{_level(row.level, language)}</td>',
        f'<td class="mark {escape(row.personal)}">{_word(row.personal, PERSONAL, language)}</td>',
        f'<td class="mark {escape(row.sensitive)}">{_word(row.sensitive, SENSITIVE, language)}</td>',
        f"<td>{_word(row.mask, MASKS, language)}</td>",
        f'<td class="notes">{_notes(row, language)}</td>',
    ]
    return f"<tr>{''.join(cells)}</tr>"


def _level(level: str, language: Language) -> str:
    if not level:
        return f'<span class="level unknown">{escape(language.of(WORDS["unclassified"]))}</span>'
    return f'<span class="level {escape(level)}">{escape(level)}</span>'


def _word(code: str, words: Mapping[str, tuple[str, str]], language: Language) -> str:
    return _both(*words[code], language) if code in words else escape(code)


def _both(zh: str, en: str, language: Language) -> str:
    if language is not Language.BOTH or zh == en:
        return escape(language.of((zh, en)))
    return f'{escape(zh)}<span class="en">{escape(en)}</span>'


def _notes(row: FieldRow, language: Language) -> str:
    facts = "".join(
        f'<span class="fact">{escape(language.of(WORDS[name]))}: <b>{escape(text)}</b></span>'
        for name, text in row.facts
    )
    return escape(row.doc) + facts


def _codes(names: Sequence[str]) -> str:
    return ", ".join(f"<code>{escape(name)}</code>" for name in names)


def _legend(language: Language) -> str:
    say = language.of
    tables = []
    for name, words in (("level", LEVELS), ("personal", PERSONAL), ("sensitive", SENSITIVE), ("mask", MASKS)):
        rows = "".join(
            f"<tr><td class='mark'>{_level(code, language) if name == 'level' else f'<code>{escape(code)}</code>'}</td>"
            f"<td>{escape(say(meaning))}</td></tr>"
            for code, meaning in words.items()
        )
        head = f"<th>{escape(say(WORDS[name]))}</th><th>{escape(say(WORDS['meaning']))}</th>"
        tables.append(f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>")
    sources = "GB/T 43697-2024 · 《个人信息保护法》(PIPL) · GB/T 35273-2020 · GB/T 45574-2025"
    nullable = f"? = {escape(say(WORDS['nullable']))}"
    return (
        f"<section><h3>{escape(say(WORDS['legend']))}</h3><p>{nullable}</p>"
        f'<div class="legend">{"".join(tables)}</div></section>'
        f"<footer>{escape(sources)}</footer>"
    )
