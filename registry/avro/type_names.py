"""Type names for readers: Avro types as `text?`, `decimal(12,2)`, `list of Address`. Pure.

They are short, because they are shown in tables; `type_name` uses Avro's names, `type_name_zh` Chinese ones. Both mark
a type that may be null with a question mark, which the legend of the table explains.
"""

from typing import Any

__all__ = ["type_name", "type_name_zh"]

_ZH = {
    "null": "空",
    "boolean": "布尔",
    "int": "整数",
    "long": "长整数",
    "float": "单精度小数",
    "double": "双精度小数",
    "bytes": "字节",
    "string": "文本",
    "date": "日期",
    "uuid": "标识符",
    "time-millis": "时刻",
    "time-micros": "时刻",
    "timestamp-millis": "时间(毫秒)",
    "timestamp-micros": "时间(微秒)",
    "timestamp-nanos": "时间(纳秒)",
    "local-timestamp-millis": "当地时间(毫秒)",
    "local-timestamp-micros": "当地时间(微秒)",
    "local-timestamp-nanos": "当地时间(纳秒)",
    "duration": "时长",
}


def type_name(node: Any) -> str:
    """Return the English name of a type.

    Args:
        node: a type of a valid schema as JSON.
    """
    return _text(node, {}, ("enum of {}", "list of {}", "map of {}", "fixed({})", "decimal({},{})"))


def type_name_zh(node: Any) -> str:
    """Return the Chinese name of a type; a part without one keeps its English name."""
    return _text(node, _ZH, ("{} 个代码之一", "{}的列表", "{}的映射", "{} 字节", "小数({},{})"))


def _text(  # noqa: PLR0911 - one return a kind of type
    node: Any, names: dict[str, str], patterns: tuple[str, str, str, str, str]
) -> str:
    if isinstance(node, list):
        inner = [branch for branch in node if branch != "null"]
        text = " | ".join(_text(branch, names, patterns) for branch in inner)
        return f"{text}?" if len(inner) < len(node) else text
    if not isinstance(node, dict):
        return names.get(str(node), str(node).rpartition(".")[2])
    kind, logical = node["type"], node.get("logicalType")
    if logical == "decimal" and "precision" in node:
        return patterns[4].format(node["precision"], node.get("scale", 0))
    if isinstance(logical, str) and not isinstance(kind, (dict, list)):
        return names.get(logical, logical)
    if kind == "enum":
        return patterns[0].format(len(node["symbols"]))
    if kind in ("array", "map"):
        return patterns[1 if kind == "array" else 2].format(
            _text(node["items" if kind == "array" else "values"], names, patterns)
        )
    if kind == "fixed":
        return patterns[3].format(node["size"])
    if kind in ("record", "error"):
        return str(node["name"]).rpartition(".")[2]
    return _text(kind, names, patterns)
