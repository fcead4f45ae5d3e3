"""Monthly report as a page of HTML in Chinese and English: self-contained, without scripts, made for printing. Pure.

Its first part answers three questions in words: who drew most, what was refused, and whether the log is whole.
"""

from collections.abc import Mapping
from html import escape
from typing import Any, Final

from exchange.audit.oversight.html_tables import Column, heading, named, page, table

__all__ = ["report_html"]

_ACTS: Final[tuple[Column, ...]] = (
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
        f"<h1>审计月报 {escape(month)} <small>Audit report</small></h1>",
        f'<p class="sub">公共数据交换池 Data Exchange Pool <b>{escape(report["pool"])}</b> · '
        f"北京时间整月 whole month of UTC+8 · {report['entries']:,} 条记录 entries · "
        f"生成于 made at {escape(report['made_at'])}"
        + ("" if report["over"] else " · <b>本月未结束 the month is not over</b>")
        + "</p>",
        _answers(report),
        heading("部门取数", "Who drew most"),
        table(
            (("party", "使用部门", "consumer"), *_FIGURES),
            [{**row, "party": named(row["name"], row["consumer"])} for row in report["consumers"]],
            "本月没有取数。 Nothing was drawn.",
        ),
        heading("取数明细", "Who drew what from whom, for which purpose"),
        table(
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
                    "to": named(row["consumer_name"], row["consumer"]),
                    "of": named(row["provider_name"], row["provider"]),
                    "what": named(row["title"], row["resource"]),
                }
                for row in report["drawn"]
            ],
            "本月没有取数。 Nothing was drawn.",
        ),
        heading("发布", "Published"),
        table(
            (
                ("who", "提供部门", "provider"),
                ("what", "资源", "resource"),
                ("BATCHES", "批次", "batches"),
                ("RECORDS", "记录", "records"),
            ),
            [
                {**row, "who": named(row["name"], row["department"]), "what": named(row["title"], row["resource"])}
                for row in report["published"]
            ],
            "本月没有发布。 Nothing was published.",
        ),
        heading("拒绝", "Refused, by reason"),
        table(
            (
                ("reason", "原因", "reason"),
                ("action", "行为", "act"),
                ("REFUSALS", "次数", "times"),
                ("who", "部门", "departments"),
            ),
            [{**row, "who": "、".join(row["departments"])} for row in report["refusals"]],
            "本月没有拒绝。 Nothing was refused.",
        ),
        heading("失败", "Allowed, and failed"),
        table(
            (("reason", "原因", "reason"), ("action", "行为", "act"), ("FAILURES", "次数", "times")),
            report["failures"],
            "没有。 None.",
        ),
        heading("权限变更", "Changes of rights"),
        _acts(report["rights"]),
        heading("数据删除", "Erasures"),
        _acts(report["erasures"]),
        heading("日志查阅", "Who read the log"),
        table(
            (
                ("actor", "账号", "account"),
                ("department", "部门", "department"),
                ("action", "行为", "act"),
                ("ACTS", "次数", "times"),
            ),
            report["readers"],
            "没有。 None.",
        ),
        heading("日志完整性", "Integrity of the log"),
        _integrity(integrity),
    ]
    return page(f"{month} · 审计月报 Audit report", parts)


_FIGURES: Final[tuple[Column, ...]] = (
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
    found = table(
        (("kind", "种类", "finding"), ("INDEX", "序号", "index"), ("message", "说明", "what is wrong")),
        integrity["findings"],
        "没有发现问题。 Nothing is wrong.",
    )
    return f"<table><tbody>{rows}</tbody></table>{found}"


def _acts(acts: Mapping[str, Any]) -> str:
    counts = table((("action", "行为", "act"), ("ACTS", "次数", "times")), acts["counts"], "没有。 None.")
    if not acts["acts"]:
        return counts
    rows = [
        {**act, "who": f"{act['actor']} ({act['department_name'] or act['department'] or act['role']})"}
        for act in acts["acts"]
    ]
    return counts + table(_ACTS, rows, "", left_out=acts["left_out"])
