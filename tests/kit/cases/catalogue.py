"""Metadata of a catalogue entry without a fault, for tests."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from registry.catalogue.metadata import DataItem, Metadata

__all__ = ["metadata", "metadata_of"]

_WHOLE = Metadata(
    title="自然人基础信息",
    title_en="Natural persons",
    abstract="全市户籍人口的基础信息",
    abstract_en="Basic data of the registered population of the city",
    class_code="101001",
    theme="public-services",
    format="database",
    items=(
        DataItem(name="公民身份号码", name_en="id_number", type="text", length=18),
        DataItem(name="姓名", name_en="full_name", type="text", length=50),
        DataItem(name="出生日期", name_en="birth_date", type="date"),
    ),
    share_type="conditional",
    share_modes=("batch", "api"),
    share_scope="各级政务部门",
    use_purpose="履行法定职责",
    open_type="none",
    update_cycle="daily",
    contact_name="数据资源科",
    contact_phone="0571-88000000",
    level="G4",
    pia_id="PIA-2026-001",
    secrecy_assessment_id="BM-2026-001",
)


def metadata(**changes: Any) -> Metadata:
    """Return complete metadata with some elements changed."""
    return replace(_WHOLE, **changes)


def metadata_of(entry: Mapping[str, Any]) -> Metadata:
    """Return complete metadata of a drafted entry, from the document of its draft."""
    conditions = ("share_scope", "use_purpose", "refuse_reason", "legal_basis")
    return metadata(
        title=entry["title"],
        class_code=entry["code"].partition("/")[0],
        code=entry["code"],
        share_type=entry["share_type"],
        share_modes=() if entry["share_type"] == "none" else ("batch", "api"),
        level=entry["level"],
        **{name: entry.get(name, "") for name in conditions},
    )
