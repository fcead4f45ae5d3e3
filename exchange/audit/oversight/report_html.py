"""Monthly report as a page of HTML in Chinese and English: self-contained, without scripts, made for printing. Pure.

Its first part answers three questions in words: who drew most, what was refused, and whether the log is whole.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, Final

__all__ = ["report_html"]

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
_Column = tuple[str, str, str]  # member, Chinese, English; a member in capitals is a number
_ACTS: Final[tuple[_Column, ...]] = (
    ("time", "时间", "time (UTC)"),
    ("action", "行为", "act"),
    ("who", "操作者", "by"),
    ("resource", "对象", "resource"),
    ("grant", "授权", "grant"),
    ("state", "状态", "state"),
    ("entry", "记录编号", "entry"),
)


def report_html(report: Mapping[str, Any]) -> str:
    """Return a report's page."""
    month, integrity = report["month"], report["integrity"]
    parts = [
        "<!doctype html>",
        '<html lang="zh-Hans"><head><meta charset="utf-8">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>{escape(month)} · 审计月报 Audit report</title><style>{_STYLE}</style></head><body>",
        f"<h1>审计月报 {escape(month)} <small>Audit report</small></h1>",
        f'<p class="sub">公共数据交换池 Data Exchange Pool <b>{escape(report["pool"])}</b> · '
        f"北京时间整月 whole month of UTC+8 · {report['entries']:,} 条记录 entries · "
        f"生成于 made at {escape(report['made_at'])}"
        + ("" if report["over"] else " · <b>本月未结束 the month is not over</b>")
        + "</p>",
        _answers(report),
        _heading("部门取数", "Who drew most"),
        _table(
            (("party", "使用部门", "consumer"), *_FIGURES),
            [{**row, "party": _named(row["name"], row["consumer"])} for row in report["consumers"]],
            "本月没有取数。 Nothing was drawn.",
        ),
        _heading("取数明细", "Who drew what from whom, for which purpose"),
        _table(
            (
                ("to", "使用部门", "consumer"),
                ("of", "提供部门", "provider"),
                ("what", "资源", "resource"),
                ("purpose", "用途", "purpose"),
                ("grant", "授权", "grant"),
                *_FIGURES,
            ),
            [
                {
                    **row,
                    "to": _named(row["consumer_name"], row["consumer"]),
                    "of": _named(row["provider_name"], row["provider"]),
                    "what": _named(row["title"], row["resource"]),
                }
                for row in report["drawn"]
            ],
            "本月没有取数。 Nothing was drawn.",
        ),
        _heading("发布", "Published"),
        _table(
            (
                ("who", "提供部门", "provider"),
                ("what", "资源", "resource"),
                ("BATCHES", "批次", "batches"),
                ("RECORDS", "记录", "records"),
            ),
            [
                {**row, "who": _named(row["name"], row["department"]), "what": _named(row["title"], row["resource"])}
                for row in report["published"]
            ],
            "本月没有发布。 Nothing was published.",
        ),
        _heading("拒绝", "Refused, by reason"),
        _table(
            (
                ("reason", "原因", "reason"),
                ("action", "行为", "act"),
                ("REFUSALS", "次数", "times"),
                ("who", "部门", "departments"),
            ),
            [{**row, "who": "、".join(row["departments"])} for row in report["refusals"]],
            "本月没有拒绝。 Nothing was refused.",
        ),
        _heading("失败", "Allowed, and failed"),
        _table(
            (("reason", "原因", "reason"), ("action", "行为", "act"), ("FAILURES", "次数", "times")),
            report["failures"],
            "没有。 None.",
        ),
        _heading("权限变更", "Changes of rights"),
        _acts(report["rights"]),
        _heading("数据删除", "Erasures"),
        _acts(report["erasures"]),
        _heading("日志查阅", "Who read the log"),
        _table(
            (
                ("actor", "账号", "account"),
                ("department", "部门", "department"),
                ("action", "行为", "act"),
                ("ACTS", "次数", "times"),
            ),
            report["readers"],
            "没有。 None.",
        ),
        _heading("日志完整性", "Integrity of the log"),
        _integrity(integrity),
        "</body></html>\n",
    ]
    return "\n".join(parts)


_FIGURES: Final[tuple[_Column, ...]] = (
    ("RELEASES", "次数", "releases"),
    ("RECORDS", "记录", "records"),
    ("WITHDRAWN", "撤回", "withdrawn"),
)


def _answers(report: Mapping[str, Any]) -> str:
    lines = []
    consumers = report["consumers"]
    if consumers:
        most, total = consumers[0], sum(row["records"] for row in consumers)
        share = f"{100 * most['records'] / total:.0f} %" if total else "–"
        who = most["name"] or most["consumer"]
        lines.append(
            f"取数最多 Drew most: <b>{escape(who)}</b>, {most['records']:,} / {total:,} 条记录 records ({share}), "
            f"{most['releases']:,} 次 releases"
        )
    else:
        lines.append("取数最多 Drew most: 本月没有取数 nobody drew anything")
    refused = sum(row["refusals"] for row in report["refusals"])
    if refused:
        first = report["refusals"][0]
        lines.append(
            f"拒绝 Refused: <b>{refused:,}</b> 次 times; 最多 most often <code>{escape(first['reason'])}</code> "
            f"({first['refusals']:,})"
        )
    else:
        lines.append("拒绝 Refused: 没有 nothing")
    changes = sum(row["acts"] for row in report["rights"]["counts"])
    erasures = sum(row["acts"] for row in report["erasures"]["counts"])
    lines.append(f"权限变更 Changes of rights: <b>{changes:,}</b> · 数据删除 Acts of erasure: <b>{erasures:,}</b>")
    integrity = report["integrity"]
    verdict = (
        '<span class="whole">完整 whole</span>'
        if integrity["whole"]
        else f'<span class="broken">不完整 NOT whole: {sum(integrity["counts"].values()):,} 处问题 findings</span>'
    )
    lines.append(
        f"日志 The log: {verdict} · {integrity['entries_read']:,} / {integrity['size']:,} 条已核验 entries verified · "
        f"缺口 gaps: {integrity['gaps']:,} · {escape(integrity['verified_at'])}"
    )
    return '<div class="answers">' + "".join(f"<p>{line}</p>" for line in lines) + "</div>"


def _integrity(integrity: Mapping[str, Any]) -> str:
    kept = (
        "与保存在池外的校验点相符性已核验 compared with a checkpoint kept outside the pool"
        if integrity["compared_with_kept_checkpoint"]
        else "未与池外保存的校验点比较：无法证明更早的记录未被整体替换 "
        "NOT compared with a checkpoint kept outside the pool: a whole exchange of the log would not show"
    )
    facts = (
        ("结论 Result", "完整 whole" if integrity["whole"] else "不完整，不可信 NOT WHOLE: DO NOT TRUST IT"),
        ("核验时间 Verified at", integrity["verified_at"]),
        ("日志 Log", integrity["origin"]),
        ("校验点 Checkpoint", f"{integrity['size']:,} 条 entries, root {integrity['root']}"),
        ("缺口 Gaps", f"{integrity['gaps']:,}"),
        ("池外校验点 Kept checkpoint", kept),
        (
            "不能证明 Not proven",
            "写入日志之前遗漏的行为；是否向他人出示过另一份日志 "  # noqa: ISC004 - one text
            "what was left out before it was written; that nobody else was shown another log",
        ),
    )
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in facts)
    found = _table(
        (("kind", "种类", "finding"), ("INDEX", "序号", "index"), ("message", "说明", "what is wrong")),
        integrity["findings"],
        "没有发现问题。 Nothing is wrong.",
    )
    return f"<table><tbody>{rows}</tbody></table>{found}"


def _acts(acts: Mapping[str, Any]) -> str:
    counts = _table((("action", "行为", "act"), ("ACTS", "次数", "times")), acts["counts"], "没有。 None.")
    if not acts["acts"]:
        return counts
    rows = [
        {**act, "who": f"{act['actor']} ({act['department_name'] or act['department'] or act['role']})"}
        for act in acts["acts"]
    ]
    return counts + _table(_ACTS, rows, "", left_out=acts["left_out"])


def _heading(zh: str, en: str) -> str:
    return f"<h2>{escape(zh)} <small>{escape(en)}</small></h2>"


def _table(columns: Iterable[_Column], rows: Sequence[Mapping[str, Any]], none: str, *, left_out: int = 0) -> str:
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


def _named(name: str, key: str) -> tuple[str, str]:
    return name, key
