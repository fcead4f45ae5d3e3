"""Full metadata (decree 809, Art. 13) of the demonstration's entries, from the schemas that the pool ships."""

import json
from collections.abc import Mapping
from typing import Any

from registry.catalogue.metadata import DataItem, Metadata

__all__ = ["entry_metadata"]

_TYPES = {"boolean": "boolean", "int": "number", "long": "number", "double": "number", "date": "date"}


def entry_metadata(schema: str, *, code: str, level: str, sharing: Mapping[str, str]) -> Metadata:
    """Return the metadata of an entry whose records have a schema.

    Args:
        schema: text of the Avro schema, with the names of its fields in Chinese.
        code: resource code.
        level: grade of the resource.
        sharing: share type, and the conditions or the reason and law that it needs.
    """
    record: dict[str, Any] = json.loads(schema)
    conditions: dict[str, Any] = {**sharing}
    return Metadata(
        title=record["zh"],
        title_en=record["name"],
        abstract=f"{record['zh']},由主管部门每日更新",
        abstract_en=record["doc"],
        class_code=code.partition("/")[0],
        code=code,
        theme="public-services",
        format="database",
        items=tuple(
            DataItem(name=field["zh"], name_en=field["name"], type=_item_type(field["type"]))
            for field in record["fields"]
        ),
        share_modes=() if sharing["share_type"] == "none" else ("batch", "api"),
        **conditions,
        open_type="none",
        update_cycle="daily",
        contact_name="数据资源科",
        contact_phone="0571-88000000",
        level=level,
        pia_id="PIA-2026-001",
        secrecy_assessment_id="BM-2026-001",
    )


def _item_type(type_: Any) -> str:
    """Return the id of the list `item_types` that a field's type belongs to."""
    if isinstance(type_, list):
        type_ = next(one for one in type_ if one != "null")
    name = type_.get("logicalType", type_["type"]) if isinstance(type_, dict) else type_
    return _TYPES.get(str(name), "text")
