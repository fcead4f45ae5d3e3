"""Subject model: contents, references, stored schemas and versions, settings. Pure."""

from dataclasses import dataclass

__all__ = ["GLOBAL", "Content", "Reference", "Settings", "StoredSchema", "StoredVersion"]


GLOBAL = ""
"""The scope of the settings of subjects that have none of their own."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A named type that a schema uses from another subject's version.

    Attributes:
        name: of the type, or of the file for Protobuf. subject, version: where it is; -1 = the latest.
        target: id of the schema that this version had at registration, 0 before it. Versions may be purged and their
            numbers reused; the id never changes its meaning.
    """

    name: str
    subject: str
    version: int
    target: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """The content of a schema, which an id identifies.

    Attributes:
        kind: AVRO, JSON or PROTOBUF. text: the schema as it was submitted.
        references: other subjects' versions that the text needs.
        metadata, rule_set: JSON text as submitted, or None; Confluent's data contracts.
    """

    text: str
    kind: str = "AVRO"
    references: tuple[Reference, ...] = ()
    metadata: str | None = None
    rule_set: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSchema:
    """A content and its id.

    Attributes:
        id: from 1; never another content's.
        key: 32 bytes: SHA-256 over the canonical form of everything in the content.
        shape: 32 bytes: the same without metadata and rules.
        content: as it was first submitted.
        origin: subject under which it was first registered.
    """

    id: int
    key: bytes
    shape: bytes
    content: Content
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredVersion:
    """A version of a subject.

    Attributes:
        number: from 1. schema_id, key, shape: of its content.
        deleted: softly: not in lists and never `latest`, still readable by id, and by number on request.
    """

    subject: str
    number: int
    schema_id: int
    key: bytes
    shape: bytes
    deleted: bool


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one scope: a subject, a context or all.

    Attributes:
        config: Confluent's configuration object as JSON text; None where nothing is configured.
        mode: READWRITE, READONLY …; None where nothing is configured.
    """

    config: str | None = None
    mode: str | None = None
