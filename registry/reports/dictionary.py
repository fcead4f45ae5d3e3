"""Data dictionary (数据字典) of a schema, for people who do not read JSON. Pure.

    build_sheet(parsed)   one record type as rows: field, label, type, required, level, personal, sensitive, mask, rules
    to_html(sheets)       one self-contained page (registry.reports.dictionary_html)
    to_markdown(…)        the same for a repository (registry.reports.dictionary_markdown)

The terms of both are defined here, in Chinese and English; `Language.BOTH` shows the two together. Labels and
descriptions in a schema are untrusted text: the renderers escape them, and a page loads nothing from elsewhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from registry.avro.fields import FieldNode, all_fields, resolved_json
from registry.avro.parser import ParsedSchema
from registry.avro.type_names import type_name, type_name_zh
from registry.governance import classification
from registry.reports.dictionary_language import Language
from schemas.access import Level

__all__ = ["LEVELS", "MASKS", "PERSONAL", "SENSITIVE", "WORDS", "FieldRow", "Language", "RecordSheet", "build_sheet"]


WORDS: Mapping[str, tuple[str, str]] = {
    "title": ("数据字典", "Data dictionary"),
    "contents": ("目录", "Contents"),
    "field": ("字段", "Field"),
    "label": ("中文名", "Label"),
    "type": ("类型", "Type"),
    "required": ("必填", "Required"),
    "yes": ("是", "yes"),
    "no": ("否", "no"),
    "level": ("级别", "Level"),
    "personal": ("个人信息", "Personal"),
    "sensitive": ("敏感", "Sensitive"),
    "mask": ("脱敏", "Mask"),
    "notes": ("规则与说明", "Rules and notes"),
    "key": ("主键", "Key"),
    "key_mark": ("键", "key"),
    "fields": ("字段数", "Fields"),
    "highest": ("最高级别", "Highest level"),
    "direct": ("直接标识字段", "Direct identifiers"),
    "sensitive_fields": ("敏感字段", "Sensitive fields"),
    "codes": ("代码", "codes"),
    "check": ("校验", "check"),
    "standard": ("标准", "standard"),
    "element": ("数据元", "data element"),
    "default": ("缺省", "default"),
    "symbols": ("取值", "values"),
    "aliases": ("曾用名", "formerly"),
    "unclassified": ("未分级", "not classified"),
    "none": ("无", "none"),
    "legend": ("图例", "Legend"),
    "meaning": ("含义", "Meaning"),
    "origin": ("来源", "Source"),
    "nullable": ("可为空", "may be null"),
}
LEVELS: Mapping[str, tuple[str, str]] = {
    "G1": ("一般数据1级", "general data, level 1"),
    "G2": ("一般数据2级", "general data, level 2"),
    "G3": ("一般数据3级", "general data, level 3"),
    "G4": ("一般数据4级", "general data, level 4"),
    "IMP": ("重要数据", "important data"),
}
"""GB/T 43697-2024: general data, split in four, then important data."""
PERSONAL: Mapping[str, tuple[str, str]] = {
    "N": ("非个人信息", "not personal"),
    "P": ("个人信息", "personal information"),
    "D": ("直接标识符", "direct identifier"),
}
"""PIPL, Art. 4."""
SENSITIVE: Mapping[str, tuple[str, str]] = {
    "N": ("非敏感", "not sensitive"),
    "s": ("敏感(仅 GB/T 35273)", "sensitive by GB/T 35273 alone"),
    "S": ("敏感个人信息", "sensitive by PIPL, Art. 28"),
}
MASKS: Mapping[str, tuple[str, str]] = {
    "none": ("原样", "as it is"),
    "keep_3_4": ("留前3后4", "first 3 and last 4 kept"),
    "keep_3_4_if_person": ("自然人留前3后4", "first 3 and last 4 kept, of persons"),
    "name_first": ("只留姓", "first character of the name kept"),
    "name_first_if_person": ("自然人只留姓", "first character kept, of persons"),
    "phone_3_4": ("电话留前3后4", "first 3 and last 4 digits kept"),
    "year_only": ("只留年份", "year kept"),
    "div_city": ("区划留到市", "division cut after the city"),
    "addr_district": ("地址留到区县", "address cut after the county"),
    "geo_3": ("坐标留3位小数", "3 decimals of coordinates"),
    "band": ("分段", "ranges"),
    "predicate": ("只答是否", "yes or no alone"),
    "redact_pii": ("遮盖个人信息", "personal information struck out"),
    "hmac_sm3": ("可关联假名", "linkable pseudonym"),
    "drop": ("不提供", "left out"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldRow:
    """Row of a dictionary: one field.

    Attributes:
        path: dotted name. name: its last part. depth: 0 at the top. key: whether it is part of the record's key.
        zh: Chinese label, "" for none. type_en, type_zh: name of the type. required: no null and no default.
        level, personal, sensitive, mask: effective values, inherited ones included; "" where not classified.
        doc: description. facts: (key of WORDS, text) of codes, checks, standard, default …
    """

    path: str
    name: str
    depth: int
    key: bool
    zh: str
    type_en: str
    type_zh: str
    required: bool
    level: str
    personal: str
    sensitive: str
    mask: str
    doc: str
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordSheet:
    """Sheet of a dictionary: one record type.

    Attributes:
        fullname, zh, doc: of the record. origin: where the schema was found.
        key: names. rows: fields at every depth, in order.
        level: the highest, None if no field is classified. direct, sensitive: paths of such fields.
        facts: further attributes of the record, (name, text).
    """

    fullname: str
    zh: str
    doc: str
    origin: str
    key: tuple[str, ...]
    rows: tuple[FieldRow, ...]
    level: Level | None
    direct: tuple[str, ...]
    sensitive: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]


def build_sheet(parsed: ParsedSchema, origin: str = "") -> RecordSheet:
    """Build the sheet of a record schema; a schema that is not a record has no rows."""
    classified = {field.path: field for field in classification.read_classification(resolved_json(parsed))[0]}
    rows = tuple(_row(field, parsed, classified.get(field.path)) for field in all_fields(parsed))
    described = {"key", "zh", "doc", *classification.INHERITED}
    return RecordSheet(
        fullname=parsed.fullname or type_name(parsed.json),
        zh=_text(parsed.attributes.get("zh")),
        doc=_text(resolved_json(parsed).get("doc")),
        origin=origin,
        key=parsed.key,
        rows=rows,
        level=classification.highest_level(list(classified.values())) if classified else None,
        direct=tuple(row.path for row in rows if row.personal == "D"),
        sensitive=tuple(row.path for row in rows if row.sensitive in {"s", "S"}),
        facts=tuple((name, _text(value)) for name, value in parsed.attributes.items() if name not in described),
    )


def _row(field: FieldNode, parsed: ParsedSchema, known: classification.ClassifiedField | None) -> FieldRow:
    node = field.node
    kind = node["type"]
    nullable = kind == "null" or (isinstance(kind, list) and "null" in kind)
    return FieldRow(
        path=field.path,
        name=field.name,
        depth=field.depth,
        key=field.depth == 0 and field.name in parsed.key,
        zh=_text(node.get("zh")),
        type_en=type_name(kind),
        type_zh=type_name_zh(kind),
        required=not nullable and "default" not in node,
        level=known.level.name if known else "",
        personal=known.personal if known else "",
        sensitive=known.sensitive if known else "",
        mask=known.mask if known else "",
        doc=_text(node.get("doc")),
        facts=tuple(_facts(node)),
    )


def _facts(node: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = []
    symbols = _symbols(node["type"])
    if symbols:
        found.append(("symbols", " ".join(symbols)))
    found += [(name, _text(node[name])) for name in ("codes", "check", "standard", "element") if name in node]
    if node.get("default") is not None:
        found.append(("default", _text(node["default"]) or '""'))
    if node.get("aliases"):
        found.append(("aliases", " ".join(node["aliases"])))
    return found


def _symbols(node: Any) -> list[str]:
    if isinstance(node, list):
        return [symbol for branch in node for symbol in _symbols(branch)]
    if isinstance(node, dict):
        return list(node["symbols"]) if node["type"] == "enum" else _symbols(node["type"])
    return []


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ("; " if any(isinstance(item, dict) for item in value) else " ").join(_text(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(item)}" for name, item in value.items())
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
