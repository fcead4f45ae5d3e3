"""Draft of an Avro schema for a resource, from the columns of its source. Pure.

What a database declares is taken over: types, what may be null, the primary key. What is guessed, its classification
above all, is marked `CONFIRM` in the text, which the registry refuses: nobody publishes under a guess.

    draft_schema("senior-card.v1", columns, key=["no"]).text
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from connectors.drafting.avro_types import DraftType
from connectors.drafting.personal_data import CONFIRM, Classification

__all__ = ["ColumnDraft", "SchemaDraft", "draft_schema"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnDraft:
    """A column of the source: its type, whether the source may leave it empty, and the proposal for it."""

    name: str
    type: DraftType
    nullable: bool
    proposal: Classification


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaDraft:
    """A draft.

    Attributes:
        text: of the schema, JSON.
        reasons: (field, proposal in short, why), for a person to read.
        columns: lines under `columns:` of the configuration, for columns whose name no field can have.
    """

    text: str
    reasons: Sequence[tuple[str, str, str]]
    columns: Sequence[str] = field(default_factory=list)


def draft_schema(resource: str, columns: Sequence[ColumnDraft], *, key: Sequence[str]) -> SchemaDraft:
    """Return the draft.

    Args:
        resource: its topic, such as `senior-card.v1`.
        columns: in the order of the source.
        key: columns that are unique; empty where nothing declares them.
    """
    names = _field_names(columns)
    title = "".join(part.capitalize() for part in re.split(r"[^A-Za-z0-9]+", resource.rpartition(".v")[0]))
    schema = {
        "type": "record",
        "name": title if _NAME.fullmatch(title) else "Record",
        "zh": f"{CONFIRM}{resource}",
        "key": [names[each] for each in key] or [f"{CONFIRM}the fields that make a record unique"],
        "fields": [_field(names[each.name], each, required=each.name in key) for each in columns],
    }
    return SchemaDraft(
        text=_text(schema),
        reasons=[(names[each.name], _short(each.proposal), _why(each)) for each in columns],
        columns=[
            f"{json.dumps(each.name, ensure_ascii=False)}: {{ as: {names[each.name]} }}"
            for each in columns
            if names[each.name] != each.name
        ],
    )


def _text(schema: Mapping[str, Any]) -> str:
    """Return the JSON with one line for each field, as a person reads it."""
    head = [
        f"  {json.dumps(name)}: {json.dumps(schema[name], ensure_ascii=False)}," for name in schema if name != "fields"
    ]
    fields = ",\n".join(f"    {json.dumps(each, ensure_ascii=False)}" for each in schema["fields"])
    return "\n".join(["{", *head, '  "fields": [', fields, "  ]", "}"]) + "\n"


def _field(name: str, column: ColumnDraft, *, required: bool) -> dict[str, Any]:
    proposal, nullable = column.proposal, column.nullable and not required
    found: dict[str, Any] = {"name": name, "zh": proposal.zh or f"{CONFIRM}{column.name}"}
    found["type"] = ["null", column.type.avro] if nullable else column.type.avro
    if nullable:
        found["default"] = None
    found |= {
        attribute: CONFIRM + getattr(proposal, attribute) for attribute in ("level", "personal", "sensitive", "mask")
    }
    if column.type.codes:
        found["codes"] = list(column.type.codes)
    if proposal.check and column.type.avro == "string":
        found["check"] = proposal.check
    return found


def _field_names(columns: Sequence[ColumnDraft]) -> dict[str, str]:
    """Return column → field. A name that no field may have gets another one; no two differ in case alone."""
    names: dict[str, str] = {}
    taken = {each.name.lower() for each in columns if _permitted(each.name)}
    kept: set[str] = set()
    for place, each in enumerate(columns, 1):
        name = each.name
        if not _permitted(name) or name.lower() in kept:
            name = each.proposal.field or re.sub(r"[^A-Za-z0-9_]+", "_", name).strip("_")
            if not _permitted(name) or name.lower() in taken:
                name = f"field_{place}"
        taken.add(name.lower())
        kept.add(name.lower())
        names[each.name] = name
    return names


def _permitted(name: str) -> bool:
    return bool(_NAME.fullmatch(name)) and not name.startswith("_")  # columns of connectors begin so


def _short(proposal: Classification) -> str:
    return f"{proposal.level} {proposal.personal} {proposal.sensitive} {proposal.mask}"


def _why(column: ColumnDraft) -> str:
    return "; ".join(filter(None, (column.proposal.because, column.type.note)))
