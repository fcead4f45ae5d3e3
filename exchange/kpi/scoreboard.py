"""Scoreboard (考核看板) of departments: the figures of a month as a page of HTML, as text, and as CSV (RFC 4180). Pure.

In the page every figure is a link to the ids of the entries behind it: the first of them, and the command that lists
them all. An entry is shown by `pool audit show ID` and proven by `pool audit prove ID`.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from html import escape
from typing import Any, Final

from exchange.audit.oversight.html_tables import heading, page
from exchange.audit.search.entry_rows import csv_line
from schemas.supervision.kpi import Kpi, kpis

__all__ = ["scoreboard_csv", "scoreboard_html", "scoreboard_rows", "value_text"]

_SHANGHAI: Final = timezone(timedelta(hours=8))
_COLUMNS: Final = (
    "month",
    "department",
    "department_name",
    "kpi",
    "name_zh",
    "name_en",
    "clause",
    "value",
    "of",
    "share",
    "detail",
    "entries",
    "first_entries",
)
_OVERVIEW: Final = (
    "records_provided",
    "records_drawn",
    "requests_received",
    "share_rate",
    "replied_on_time",
    "refusals_without_clause",
    "overdue",
    "denials",
    "repeated_collection",
    "grants_unused",
)
_POOL: Final = "数据主管部门与平台 authority and pool"
_STYLE: Final = """
.overview td, .overview th { text-align: right; }
.overview td:first-child, .overview th:first-child { text-align: left; }
.figures th:nth-child(2) { text-align: right; }
td.v { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; font-weight: 600; }
td.bad a { color: #a40e26; } a { color: #1f4e79; text-decoration: none; border-bottom: 1px dotted #1f4e79; }
.behind { font-size: .82em; color: #57606a; } .behind p { margin: .5rem 0; padding-left: .6rem;
  border-left: 3px solid transparent; } .behind p:target { background: #fff8c5; border-left-color: #bf8700; }
.behind code { margin-right: .6em; overflow-wrap: normal; }
.by { font-weight: normal; color: #57606a; font-size: .86em; }
"""
_BAD: Final = frozenset({"refusals_without_clause", "overdue", "repeated_collection", "out_of_scope"})
"""Figures that should be 0."""


def value_text(figure: Mapping[str, Any]) -> str:
    """Return a figure's value as text: a number, or a share with what it is of."""
    if "of" not in figure:
        return f"{figure['value']:,}"
    if not figure["of"]:
        return "–"
    return f"{100 * figure['value'] / figure['of']:.1f} % ({figure['value']:,}/{figure['of']:,})"


def scoreboard_rows(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the figures as rows: department, name of the figure in both languages, value, clause."""
    known = {kpi.id: kpi for kpi in kpis()}
    return [
        {
            "department": _name(document, one["department"]),
            "kpi": figure["kpi"],
            "name": f"{known[figure['kpi']].name['zh']} {known[figure['kpi']].name['en']}",
            "value": value_text(figure),
            "clause": known[figure["kpi"]].clause,
            "entries": figure["entries"],
        }
        for one in document["departments"]
        for figure in one["figures"]
        if figure["kpi"] in known
    ]


def scoreboard_csv(document: Mapping[str, Any]) -> str:
    """Return the figures as CSV; texts are neutralised, so that a spreadsheet runs none of them as a formula."""
    return csv_line(_COLUMNS) + "".join(
        csv_line(row.get(column, "") for column in _COLUMNS) for row in _csv_rows(document)
    )


def _csv_rows(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    known = {kpi.id: kpi for kpi in kpis()}
    for one in document["departments"]:
        for figure in one["figures"]:
            kpi = known.get(figure["kpi"])
            if kpi is None:
                continue
            row = {
                "month": document["month"],
                "department": one["department"],
                "department_name": _name(document, one["department"]),
                "kpi": kpi.id,
                "name_zh": kpi.name["zh"],
                "name_en": kpi.name["en"],
                "clause": kpi.clause,
                "value": figure["value"],
                "of": figure.get("of", ""),
                "share": f"{figure['value'] / figure['of']:.4f}" if figure.get("of") else "",
                "entries": figure["entries"],
                "first_entries": " ".join(figure["first"]),
            }
            yield row
            for detail, amount in figure.get("by", {}).items():
                yield row | {"value": amount, "detail": detail, "entries": "", "first_entries": ""}


def scoreboard_html(document: Mapping[str, Any]) -> str:
    """Return the page of a month's figures."""
    month = document["month"]
    over = "" if document["over"] else " · <b>本月未结束 the month is not over</b>"
    until = _local(document["until"]) if document["until"] else "–"
    about = (
        f"公共数据交换池 Data Exchange Pool <b>{escape(document['pool'])}</b> · 北京时间整月 whole month of UTC+8 · "
        f"依据日志前 {document['entries']:,} 条 from as many entries of the log, to {until}{over}"
    )
    parts = [
        f"<h1>共享监督考核 {escape(month)} <small>Sharing supervision: figures of departments</small></h1>",
        f'<p class="sub">{about}</p>',
    ]
    departments = sorted(document["departments"], key=lambda one: not one["department"])  # the pool's own last
    if not departments:
        return page(f"{month} · 共享监督考核", [*parts, '<p class="none">本月没有记录。 Nothing was recorded.</p>'])
    parts += [heading("总览", "Overview"), _overview(document, departments)]
    for at, one in enumerate(departments):
        parts += _department(document, at, one)
    parts += [heading("指标说明", "Definitions"), _definitions(document)]
    return page(f"{month} · 共享监督考核 Sharing supervision", parts, style=_STYLE)


def _overview(document: Mapping[str, Any], departments: Sequence[Mapping[str, Any]]) -> str:
    known = {kpi.id: kpi for kpi in kpis()}
    head = "".join(
        f'<th scope="col">{escape(known[one].name["zh"])}<br><small>{escape(known[one].name["en"])}</small></th>'
        for one in _OVERVIEW
    )
    rows = []
    for at, one in enumerate(departments):
        figures = {figure["kpi"]: figure for figure in one["figures"]}
        cells = "".join(_cell(at, figures[name], short=True) for name in _OVERVIEW if name in figures)
        name = escape(_name(document, one["department"]))
        rows.append(f'<tr><td><a href="#d{at}">{name}</a></td>{cells}</tr>')
    return (
        f'<table class="overview"><thead><tr><th scope="col">部门 <small>department</small></th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _department(document: Mapping[str, Any], at: int, one: Mapping[str, Any]) -> list[str]:
    known = {kpi.id: kpi for kpi in kpis()}
    rows, behind = [], []
    for figure in one["figures"]:
        kpi = known.get(figure["kpi"])
        if kpi is None:
            continue
        rows.append(
            f"<tr><td>{escape(kpi.name['zh'])} <small>{escape(kpi.name['en'])}</small></td>{_cell(at, figure)}"
            f"<td>{escape(kpi.clause)}</td></tr>"
        )
        if figure["entries"]:
            behind.append(_behind(document, at, one["department"], kpi, figure))
    name, columns = _name(document, one["department"]), (("指标", "figure"), ("数值", "value"), ("条款", "clause"))
    head = "".join(f'<th scope="col">{zh} <small>{en}</small></th>' for zh, en in columns)
    return [
        f'<h2 id="d{at}">{escape(name)} <small>{escape(one["department"])}</small></h2>',
        f'<table class="figures"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>',
        f'<div class="behind">{"".join(behind)}</div>',
    ]


def _cell(at: int, figure: Mapping[str, Any], *, short: bool = False) -> str:
    bad = " bad" if figure["kpi"] in _BAD and figure["value"] else ""
    text = value_text(figure)
    if short and "of" in figure:
        text = text.partition(" (")[0]
    shown = f'<a href="#{_anchor(at, figure)}">{text}</a>' if figure["entries"] else text
    details = "" if short else "".join(f"{escape(name)} {n:,} · " for name, n in figure.get("by", {}).items())
    by = f'<br><span class="by">{details.removesuffix(" · ")}</span>' if details else ""
    return f'<td class="v{bad}">{shown}{by}</td>'


def _behind(document: Mapping[str, Any], at: int, department: str, kpi: Kpi, figure: Mapping[str, Any]) -> str:
    ids = "".join(f"<code>{escape(entry)}</code>" for entry in figure["first"])
    more = figure["entries"] - len(figure["first"])
    command = f"pool report entries {kpi.id} --month {document['month']} --department {department}"
    rest = f"另有 {more:,} 条 more: <code>{escape(command)}</code>" if more > 0 else ""
    return (
        f'<p id="{_anchor(at, figure)}"><b>{escape(kpi.name["zh"])}</b> · {figure["entries"]:,} 条记录 entries: '
        f"{ids}{rest}</p>"
    )


def _definitions(document: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<tr><td>{escape(one.name['zh'])}<br><small>{escape(one.name['en'])}</small></td>"
        f"<td>{escape(one.formula['zh'])}<br><small>{escape(one.formula['en'])}</small></td>"
        f"<td>{escape(one.clause)}</td></tr>"
        for one in kpis()
    )
    return (
        '<table><thead><tr><th scope="col">指标 <small>figure</small></th><th scope="col">口径 <small>formula</small>'
        f'</th><th scope="col">条款 <small>clause</small></th></tr></thead><tbody>{rows}</tbody></table>'
        f'<p class="none">规定天数 days: {document["unused_days"]}. 809: 政务数据共享条例 State Council decree 809.</p>'
    )


def _local(at: str) -> str:
    return datetime.fromisoformat(at).astimezone(_SHANGHAI).strftime("%Y-%m-%d %H:%M")


def _anchor(at: int, figure: Mapping[str, Any]) -> str:
    return f"d{at}-{figure['kpi']}"


def _name(document: Mapping[str, Any], department: str) -> str:
    if not department:
        return _POOL
    name: str = document.get("names", {}).get(department, "")
    return name or department
