"""HTML pages of reports: one style, headings in Chinese and English, tables; self-contained, no scripts. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Final

__all__ = ["Column", "heading", "named", "page", "table"]

_SHOWN: Final = 200  # rows of a table; CSV and JSON have all
_STYLE: Final = """
:root { color-scheme: light; }
body { font: 15px/1.5 "Noto Sans CJK SC", "Source Han Sans SC", "Microsoft YaHei", "PingFang SC", sans-serif;
  color: #1b1f24; max-width: 1100px; margin: 2rem auto; padding: 0 1.5rem; }
h1 { font-size: 1.7rem; margin: 0 0 .2rem; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem;
  border-bottom: 2px solid #1f4e79; padding-bottom: .2rem; } h2 small, h1 small { font-weight: normal; color: #57606a; }
.sub { color: #57606a; margin: 0 0 1.4rem; } code { font-size: .86em; overflow-wrap: anywhere; }
.answers { border: 1px solid #d0d7de; border-left: 6px solid #1f4e79; padding: .8rem 1.2rem; background: #f6f8fa; }
.answers p { margin: .35rem 0; } .whole { color: #116329; } .broken { color: #a40e26; }
.whole, .broken { font-weight: bold; }
table { border-collapse: collapse; width: 100%; margin: .4rem 0; font-size: .92em; }
th, td { text-align: left; padding: .35rem .55rem; border-bottom: 1px solid #d8dee4; vertical-align: top;
  overflow-wrap: break-word; }
thead { display: table-header-group; } th { background: #eef2f6; font-weight: 600; } th small { font-weight: normal; }
td.n, th.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
tr { break-inside: avoid; } .none, .more { color: #57606a; } .id { color: #57606a; font-size: .82em; }
@page { size: A4 landscape; margin: 14mm; }
@media print { body { margin: 0; max-width: none; padding: 0; font-size: 11px; } h2 { break-after: avoid; } }
"""
Column = tuple[str, str, str]
"""Member, Chinese, English; a member in capitals is a number."""


def page(title: str, parts: Iterable[str], *, style: str = "") -> str:
    """Return a page; *title* is escaped, the parts are HTML."""
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="zh-Hans"><head><meta charset="utf-8">',
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
            f"<title>{escape(title)}</title><style>{_STYLE}{style}</style></head><body>",
            *parts,
            "</body></html>\n",
        ]
    )


def heading(zh: str, en: str) -> str:
    """Return a heading."""
    return f"<h2>{escape(zh)} <small>{escape(en)}</small></h2>"


def table(columns: Iterable[Column], rows: Sequence[Mapping[str, Any]], none: str, *, left_out: int = 0) -> str:
    """Return a table of rows, or the text *none* where there are none; *left_out*: rows that are not here."""
    if not rows:
        return f'<p class="none">{escape(none)}</p>'
    columns = tuple(columns)
    head = "".join(
        f'<th{_numeric(member)} scope="col">{escape(zh)} <small>{escape(en)}</small></th>' for member, zh, en in columns
    )
    body = "".join(
        "<tr>" + "".join(f"<td{_numeric(member)}>{_cell(row, member)}</td>" for member, _, _ in columns) + "</tr>"
        for row in rows[:_SHOWN]
    )
    more = left_out + max(0, len(rows) - _SHOWN)
    note = f'<p class="more">另有 {more:,} 行，见 CSV、JSON 或日志 more in CSV, JSON or the log</p>' if more else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note}"


def _numeric(member: str) -> str:
    return ' class="n"' if member.isupper() else ""


def _cell(row: Mapping[str, Any], member: str) -> str:
    value = row[member.lower()]
    if isinstance(value, tuple):
        name, key = value
        return f'{escape(name)}<br><span class="id">{escape(key)}</span>' if name else escape(key or "–")
    return f"{value:,}" if isinstance(value, int) else escape("" if value is None else str(value))


def named(name: str, key: str) -> tuple[str, str]:
    """Return a cell of a name, with its id below."""
    return name, key
