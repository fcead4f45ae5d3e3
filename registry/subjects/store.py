"""Ports of the store of subjects: a reader and a writer. `memory` and `registry.postgres.subjects` implement them.

Three rules, each enforced by one unique key, so that no leader election and no global lock is needed:

    a content has one id          unique (content key)       never freed, never assigned to another content
    a version has one content     unique (subject, number)   1, 2, 3 … without a gap
    a subject has one writer      a lock per subject         registrations of other subjects do not wait

`SubjectWriter.change` takes that lock within the caller's unit of work, so that the change, the records of the outbox
and the audit entry become durable together or not at all. Any number of processes may do so concurrently.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from registry.database.unit_of_work import Reader, UnitOfWork
from registry.subjects.model import Content, Settings, StoredSchema, StoredVersion
from schemas.errors import ConflictError, Reason

__all__ = [
    "MAX_GAPS",
    "MAX_IMPORTED_ID",
    "SubjectChange",
    "SubjectReader",
    "SubjectWriter",
    "require_same_content",
]

MAX_IMPORTED_ID = 2**30  # highest id of an import: half of all ids remain for new schemas
MAX_GAPS = 1_000_000  # unassigned ids below an imported one, so that an import cannot exhaust the ids


class SubjectChange(Protocol):
    """Change of one subject, which is locked, within one transaction."""

    def versions(self) -> list[StoredVersion]:
        """Return every version, deleted ones too, in ascending order."""
        ...

    def settings(self) -> Settings:
        """Return the subject's own settings."""
        ...

    def scope_settings(self) -> Mapping[str, Settings]:
        """Return the settings of the scopes that were requested when the change began, by name."""
        ...

    def import_content(self, schema_id: int, key: bytes, fingerprint: bytes, content: Content) -> StoredSchema:
        """Store a content under the id that it has in another registry; ids assigned later are higher.

        A content that already has an id here gets this one in addition: records may carry either.

        Raises:
            ConflictError: ID_TAKEN, when the id identifies another content.
        """
        ...

    def add_content(self, number: int, key: bytes, fingerprint: bytes, content: Content) -> StoredSchema:
        """Add a version with a content; return the content's schema, with a new id if the content is new.

        Args:
            number: one above the highest; the lock keeps it free.
            key: the content's key, 32 bytes.
            fingerprint: the same without metadata and rules, 32 bytes.
            content: as submitted; its text is stored for the version, the rest only if the content is new.

        Raises:
            ConflictError: VERSION_CONFLICT, the subject has this version.
        """
        ...

    def add_version(self, number: int, schema: StoredSchema, text: str) -> None:
        """Add a version of a stored schema, with its own text.

        Args:
            number: not in use.
            schema: of the version.
            text: as submitted for this version.

        Raises:
            ConflictError: VERSION_CONFLICT, the subject has this version.
        """
        ...

    def mark_deleted(self, numbers: Iterable[int]) -> None:
        """Delete versions softly."""
        ...

    def purge(self, numbers: Iterable[int]) -> None:
        """Delete versions permanently. Their ids keep their contents."""
        ...

    def configure(self, settings: Settings) -> None:
        """Replace the subject's own settings."""
        ...


class SubjectReader(Protocol):
    """Port: reads schemas, subjects, versions and settings."""

    def schema(self, reader: Reader, schema_id: int) -> StoredSchema | None:
        """Return the schema of an id; an id that was assigned is found permanently, even if its versions are purged."""
        ...

    def schema_by_guid(self, reader: Reader, prefix: bytes) -> StoredSchema | None:
        """Return the schema whose key begins with these 16 bytes."""
        ...

    def highest_id(self, reader: Reader) -> int:
        """Return the highest id of a schema; 0 without any."""
        ...

    def version(self, reader: Reader, subject: str, number: int | None) -> tuple[StoredVersion, str] | None:
        """Return a version, deleted or not, and its own text; number None = the latest that is not deleted.

        Takes the same time for any number of versions.
        """
        ...

    def all_versions(self, reader: Reader) -> list[StoredVersion]:
        """Return every version of every listed subject, deleted ones too, by subject and number."""
        ...

    def referrers(self, reader: Reader, subject: str, number: int | None = None) -> list[StoredVersion]:
        """Return the versions whose schemas refer to a version, or to any of the subject's, deleted ones too."""
        ...

    def versions_by_fingerprint(
        self, reader: Reader, subject: str, fingerprint: bytes
    ) -> list[tuple[StoredVersion, str]]:
        """Return the versions of a subject with this schema and any metadata, and their own texts.

        Deleted ones too, ascending. Takes the same time for any number of versions.
        """
        ...

    def versions(self, reader: Reader, subject: str) -> list[StoredVersion]:
        """Return every version of a subject, deleted ones too, in ascending order."""
        ...

    def version_text(self, reader: Reader, subject: str, number: int) -> str | None:
        """Return a version's own text, as it was submitted."""
        ...

    def versions_by_schema_id(self, reader: Reader, schema_id: int) -> list[StoredVersion]:
        """Return every version that has a schema's id, deleted ones too, by subject and number."""
        ...

    def subjects(self, reader: Reader) -> list[tuple[str, bool]]:
        """Return (name, whether it has a live version) of every listed subject with a version, sorted by name."""
        ...

    def settings(self, reader: Reader, subject: str) -> Settings:
        """Return a subject's own settings, or the global ones for `GLOBAL`."""
        ...

    def settings_of(self, reader: Reader, names: Sequence[str]) -> Mapping[str, Settings]:
        """Return the settings of several scopes; those without any are omitted."""
        ...

    def all_settings(self, reader: Reader) -> Mapping[str, Settings]:
        """Return the settings of every scope that has some, by name. Looks at every subject."""
        ...

    def configurations(self, reader: Reader) -> Mapping[str, Settings]:
        """Return the settings of every scope that has a configuration, by name; for a cache that is often refreshed.

        Subjects without one are not looked at, so the time does not grow with their number. Where the store checks
        its rows, a configuration that was taken away unnoticed is therefore missing here, and refused by the others.
        """
        ...


class SubjectWriter(Protocol):
    """Port: changes one subject at a time, within the caller's transaction."""

    def change(
        self,
        work: UnitOfWork,
        subject: str,
        *,
        hidden: bool = False,
        scopes: Sequence[str] = (),
        also: Sequence[str] = (),
    ) -> AbstractContextManager[SubjectChange]:
        """Lock a subject, new or not, until the transaction ends.

        Args:
            work: the transaction.
            subject: its name; `GLOBAL` for the settings of all.
            hidden: do not list the subject if it is new.
            scopes: names of the scopes whose settings `SubjectChange.scope_settings` returns.
            also: other subjects to lock, those that a schema refers to; locked in the order of their names.

        Raises:
            UnavailableError: DATABASE_UNAVAILABLE or DISK_FULL.
        """
        ...


def require_same_content(stored: StoredSchema, key: bytes) -> None:
    """Check that the content of an id is the one with this key.

    Raises:
        ConflictError: ID_TAKEN.
    """
    if stored.key != key:
        raise ConflictError(
            Reason.ID_TAKEN,
            f"Overwrite new schema with id {stored.id} is not permitted: the id stands for another schema, for ever",
            details={"schema": str(stored.id)},
        )
