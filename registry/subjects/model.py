"""Values of subjects: contents, references, stored schemas and versions, settings. Pure."""

from dataclasses import dataclass

__all__ = ["GLOBAL", "Content", "SchemaReference", "Settings", "StoredSchema", "StoredVersion"]


GLOBAL = ""
"""Scope of the settings that apply to every subject without its own."""


@dataclass(frozen=True, slots=True)
class SchemaReference:
    """Reference of a schema to a named type in another subject's version.

    Attributes:
        name: of the type, or of the file for Protobuf. subject, version: which defines it; -1 = the latest.
        schema_id: id of that version's schema at registration, 0 before it. Versions may be purged and their numbers
            assigned again; the id identifies the schema permanently.
    """

    name: str
    subject: str
    version: int
    schema_id: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """Content that an id identifies: a schema with its references, metadata and rules.

    Attributes:
        schema_type: AVRO, JSON or PROTOBUF. text: the schema as it was submitted.
        references: other subjects' versions that the text needs.
        metadata, rule_set: JSON text as submitted, or None; Confluent's data contracts.
    """

    text: str
    schema_type: str = "AVRO"
    references: tuple[SchemaReference, ...] = ()
    metadata: str | None = None
    rule_set: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSchema:
    """Content with its id.

    Attributes:
        id: from 1; permanently this content's.
        key: 32 bytes: SHA-256 of the canonical form of everything in the content.
        fingerprint: 32 bytes: the same without metadata and rules.
        content: as it was first submitted.
        origin: subject under which it was first registered.
    """

    id: int
    key: bytes
    fingerprint: bytes
    content: Content
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredVersion:
    """Version of a subject, without its content.

    Attributes:
        number: from 1. schema_id, key, fingerprint: of its content.
        deleted: softly: not in lists and not `latest`, still readable by id, and by number on request.
    """

    subject: str
    number: int
    schema_id: int
    key: bytes
    fingerprint: bytes
    deleted: bool


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of a subject or of another scope.

    Attributes:
        config: Confluent's configuration object as JSON text; None if not configured.
        mode: READWRITE, READONLY …; None if not configured.
    """

    config: str | None = None
    mode: str | None = None
