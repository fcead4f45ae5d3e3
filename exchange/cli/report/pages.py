"""Pages and CSV of lineage and coverage: rendered from the documents of the API, with the tables of the monthly report.

A page is self-contained and has no script. CSV (RFC 4180) has one row for each fact, its first column names the kind.
"""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final

from exchange.audit.oversight.html_tables import heading, named, page, table
from exchange.audit.search.entry_rows import csv_line

__all__ = ["coverage_csv", "coverage_html", "lineage_csv", "lineage_html"]

_LINEAGE: Final = (
    "kind",
    "field",
    "zh",
    "level",
    "element",
    "source",
    "grant",
    "consumer",
    "consumer_name",
    "state",
    "mask",
    "releases",
    "records",
    "batch",
    "received_at",
    "lane",
    "entry",
    "at",
)
_COVERAGE: Final = ("kind", "department", "name", "division", "theme", "theme_name", "resources")
_MATRIX: Final = """
.matrix td, .matrix th { text-align: center; padding: .3rem .25rem; } .matrix td:first-child { text-align: left; }
.matrix th small { font-size: .8em; } td.empty { background: #ffebe9; color: #a40e26; } td.some { background: #dafbe1; }
"""


def lineage_html(document: Mapping[str, Any]) -> str:
    """Return the page of a lineage."""
    name = document["title"] or document["resource"]
    about = (
        f"<code>{escape(document['resource'])}</code> {escape(document['code'])} · 数源部门 source department "
        f"<b>{escape(document['provider_name'] or document['provider'])}</b> · {escape(document['state'])}"
    )
    versions = "、".join(f"{one['version']} (id {one['schema_id']})" for one in document["schemas"]) or "–"
    return page(
        f"{name} · 数据血缘 Lineage",
        [
            f"<h1>{escape(name)} <small>数据血缘 Lineage</small></h1>",
            f'<p class="sub">{about}<br>结构版本 schema versions: {escape(versions)}</p>',
            heading("字段", "Fields"),
            table(
                (
                    ("name", "字段", "field"),
                    ("zh", "名称", "label"),
                    ("level", "级别", "level"),
                    ("mask", "默认脱敏", "mask"),
                    ("of", "数据元", "data element"),
                    ("versions", "结构版本", "versions"),
                    ("to", "使用部门", "consumers"),
                ),
                [
                    {
                        **one,
                        "of": one["element"] + (" 数源 source" if one["element_source"] else ""),
                        "versions": f"{one['since_version']}–{one['last_version']}",
                        "to": "、".join(
                            f"{each['consumer_name'] or each['consumer']} ({each['mask']})" for each in one["grants"]
                        ),
                    }
                    for one in document["lineage"]
                ],
                "没有字段。 No field.",
            ),
            heading("授权与取用", "Grants and what was drawn"),
            table(
                (
                    ("who", "使用部门", "consumer"),
                    ("grant", "授权", "grant"),
                    ("state", "状态", "state"),
                    ("purpose", "用途", "purpose"),
                    ("names", "字段", "fields"),
                    ("RELEASES", "次数", "releases"),
                    ("RECORDS", "记录", "records"),
                    ("last", "最近", "last"),
                ),
                [
                    {**one, "who": named(one["consumer_name"], one["consumer"]), "names": ", ".join(one["fields"])}
                    for one in document["grants"]
                ],
                "没有授权。 No grant.",
            ),
            heading("批次", "Batches, from receipt to erasure"),
            table(
                (
                    ("received_at", "入池", "received"),
                    ("batch", "批次", "batch"),
                    ("RECORDS", "记录", "records"),
                    ("drawn_by", "取用", "drawn by"),
                    ("erased_by", "删除", "erasures"),
                    ("entry", "记录编号", "entry"),
                ),
                [
                    {
                        **one,
                        "batch": f"{one['lane']} #{one['sequence']}",
                        "drawn_by": "; ".join(
                            f"{each['consumer_name'] or each['consumer']} {each['records']:,}" for each in one["drawn"]
                        )
                        + ("" if one["drawn_complete"] else " …"),
                        "erased_by": "; ".join(each["entry"] for each in one["erased"]),
                    }
                    for one in document.get("batches", [])
                ],
                "没有批次。 No batch.",
            ),
        ],
    )


def lineage_csv(document: Mapping[str, Any]) -> str:
    """Return a lineage as CSV."""
    return _csv(_LINEAGE, _lineage_rows(document))


def _lineage_rows(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for one in document["lineage"]:
        source = document["provider_name"] or document["provider"]
        yield {"kind": "field", **one, "field": one["name"], "source": source}
        for grant in one["grants"]:
            yield {"kind": "field granted", "field": one["name"], **grant}
    for one in document["grants"]:
        yield {"kind": "grant", **one, "at": one["last"]}
    for one in document.get("batches", []):
        batch = {"batch": one["sequence"], "lane": one["lane"]}
        yield {"kind": "batch", **batch, **one, "batch": one["sequence"]}
        for drawn in one["drawn"]:
            yield {"kind": "batch drawn", **batch, **drawn, "entry": drawn["first_entry"], "at": drawn["first_at"]}
        for erased in one["erased"]:
            yield {"kind": "batch erasure", **batch, "entry": erased["entry"], "at": erased["at"]}


def coverage_html(document: Mapping[str, Any]) -> str:
    """Return the page of a coverage: a matrix of departments and themes, and what is empty."""
    themes = document["themes"]
    names = {one["department"]: one["name"] for one in document["departments"]}
    head = "".join(f'<th scope="col">{escape(one["zh"])}<br><small>{escape(one["en"])}</small></th>' for one in themes)
    rows = "".join(
        f'<tr><td>{escape(one["name"])} <span class="id">{escape(one["division"])}</span></td>'
        + "".join(_count(one["themes"].get(theme["theme"], 0)) for theme in themes)
        + f"<td><b>{one['resources']:,}</b></td></tr>"
        for one in document["departments"]
    )
    empty = document["empty"]
    zh = {one["theme"]: one["zh"] for one in themes}
    about = (
        f"{document['resources']:,} 项已发布资源 published resources · "
        f"{len(document['departments']):,} 个提供部门 providing departments"
    )
    head = f'<th scope="col">部门 <small>department</small></th>{head}<th scope="col">合计 <small>sum</small></th>'
    return page(
        "资源覆盖 Coverage",
        [
            "<h1>资源覆盖 <small>Coverage of the catalogue</small></h1>",
            f'<p class="sub">{about}</p>',
            heading("部门 × 主题", "Departments and themes; empty cells are marked"),
            f'<table class="matrix"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>',
            heading("行政区划", "Divisions"),
            table(
                (("division", "行政区划", "division"), ("RESOURCES", "资源", "resources")),
                document["divisions"],
                "没有。 None.",
            ),
            heading("空白", "Empty"),
            _named_list("没有资源的部门 Departments without a resource", [names[one] for one in empty["departments"]]),
            _named_list("没有资源的主题 Themes without a resource", [zh.get(one, one) for one in empty["themes"]]),
            _named_list("没有资源的区划 Divisions without a resource", empty["divisions"]),
        ],
        style=_MATRIX,
    )


def coverage_csv(document: Mapping[str, Any]) -> str:
    """Return a coverage as CSV; an empty cell is a row with 0."""
    return _csv(_COVERAGE, _coverage_rows(document))


def _coverage_rows(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for one in document["departments"]:
        about = {"department": one["department"], "name": one["name"], "division": one["division"]}
        yield {"kind": "department", **about, "resources": one["resources"]}
        for theme in document["themes"]:
            count = one["themes"].get(theme["theme"], 0)
            yield {"kind": "cell", **about, "theme": theme["theme"], "theme_name": theme["zh"], "resources": count}
    for one in document["themes"]:
        yield {"kind": "theme", "theme": one["theme"], "theme_name": one["zh"], "resources": one["resources"]}
    for one in document["divisions"]:
        yield {"kind": "division", **one}
    for division, theme in document["empty"]["division_themes"]:
        yield {"kind": "empty in division", "division": division, "theme": theme, "resources": 0}


def _csv(columns: tuple[str, ...], rows: Iterator[dict[str, Any]]) -> str:
    return csv_line(columns) + "".join(csv_line(row.get(column, "") for column in columns) for row in rows)


def _count(count: int) -> str:
    return f'<td class="some">{count:,}</td>' if count else '<td class="empty">0</td>'


def _named_list(what: str, names: list[str]) -> str:
    return f"<p><b>{escape(what)}</b>: {escape('、'.join(names)) or '没有 none'}</p>"
