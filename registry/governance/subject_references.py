"""Subjects of a record (主体): whose record it is, by which field, in the attribute `subject`. Pure.

    "subject": [{"kind": "person", "role": "self", "id": "id_number", "type": "id_type"},
                {"kind": "person", "role": "guardian", "id": "guardian_id_number"}]

    kind  person, organisation, place, or person_or_organisation where a field or the number tells which
    role  the subject's part in the record: self, holder, applicant, guardian, legal_rep …
    id    the field that holds its number
    type  the field that says what number that is; without it, the number's form does

Erasure, corrections and a person's own view go by it: what names no subject is found for nobody. So a record type of a
base class (基础信息资源, `class_code` 1…) with a direct identifier of a person must name one.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from registry.governance.classification import ClassificationFinding, effective_fields
from schemas.errors import InvalidError, Reason

__all__ = ["KINDS", "SubjectReference", "find_unnamed", "require_subjects", "subjects_of"]

KINDS: Final = ("person", "organisation", "place", "person_or_organisation")
"""What a subject may be."""

_MEMBERS: Final = frozenset({"kind", "role", "id"})
_ROLE: Final = re.compile(r"[a-z][a-z_]{0,31}")
_MOST: Final = 16
_BASE: Final = "1"  # first digit of the class: base resources
_MISSING: Final = (
    'missing: "subject"; a record type of a base class with a direct identifier of a person names whose record it is'
)
_EXAMPLE: Final = '[{"kind": "person", "role": "self", "id": "id_number"}]'


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectReference:
    """One subject of a record type; `type` is empty where the number's form tells what it is."""

    kind: str
    role: str
    id: str
    type: str = ""


def subjects_of(schema: Mapping[str, Any]) -> tuple[SubjectReference, ...]:
    """Return the subjects that a schema names; *schema* without findings of `find_unnamed`."""
    return tuple(SubjectReference(**one) for one in schema.get("subject", ()))


def find_unnamed(schema: Any) -> list[ClassificationFinding]:
    """Return what is wrong with the subjects of a schema, as parsed JSON that is valid Avro; empty = nothing."""
    if not isinstance(schema, dict) or schema.get("type") != "record":
        return []
    if "subject" in schema:
        found = list(_malformed(schema))
    elif str(schema.get("class_code", "")).startswith(_BASE) and _identifies_persons(schema):
        found = [f"{_MISSING}, such as {_EXAMPLE}"]
    else:
        found = []
    return [ClassificationFinding(path="", at="$.subject", message=message) for message in found]


def require_subjects(schema: Any) -> None:
    """Check that a schema names its subjects.

    Raises:
        InvalidError: SCHEMA_UNCLASSIFIED, naming everything that is wrong.
    """
    findings = find_unnamed(schema)
    if findings:
        raise InvalidError(
            Reason.SCHEMA_UNCLASSIFIED,
            "; ".join(finding.message for finding in findings),
            details={"fields": "subject"},
        )


def _identifies_persons(schema: Mapping[str, Any]) -> bool:
    return any(field.get("personal") == "D" for _, _, _, field in effective_fields(schema))


def _malformed(schema: Mapping[str, Any]) -> Iterator[str]:
    stated = schema["subject"]
    if not isinstance(stated, list) or not 0 < len(stated) <= _MOST:
        yield f'"subject" is no list of 1 to {_MOST} subjects; expected {_EXAMPLE}, for example'
        return
    fields = {field.get("name") for field in schema.get("fields", ()) if isinstance(field, dict)}
    seen: set[tuple[str, str]] = set()
    for number, one in enumerate(stated):
        if not isinstance(one, dict) or one.keys() - {"type"} != _MEMBERS or not all(map(_is_text, one.values())):
            yield f'"subject" {number} has other members; expected the texts kind, role, id, and perhaps type'
            continue
        if one["kind"] not in KINDS:
            yield f'"subject" {number} has another kind; expected one of {", ".join(KINDS)}'
        if not _ROLE.fullmatch(one["role"]):
            yield f'"subject" {number} has another role; expected small letters, such as self or guardian'
        yield from (
            f'"subject" {number} names a field as its {member} that the record does not have'
            for member in ("id", "type")
            if member in one and one[member] not in fields
        )
        if (one["role"], one["id"]) in seen:
            yield f'"subject" {number} is there twice; expected each role of a field once'
        seen.add((one["role"], one["id"]))


def _is_text(value: object) -> bool:
    return isinstance(value, str)
