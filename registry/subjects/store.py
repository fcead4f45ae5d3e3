"""Subject store ports: reading and changing subjects. `memory` and `registry.postgres.subjects` implement them.

Three rules, each enforced by one unique key, so that neither leader election nor a global lock is needed:

    a content has one id          unique (content key)       never freed, never assigned to another content
    a version has one content     unique (subject, number)   1, 2, 3 … without a gap
    a subject has one writer      a lock per subject         other subjects are not blocked

`SubjectWriter.change` takes that lock within the caller's unit of work, so that the change, the records of the outbox
and the audit entry become durable together or not at all. Any number of processes may do so at once.
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
    "Change",
    "SubjectReader",
    "SubjectWriter",
    "require_same_content",
]

MAX_IMPORTED_ID = 2**30  # no import raises the numbering beyond it: half of all ids stay free
MAX_GAPS = 1_000_000  # ids that may lack a version, so that an imported id cannot exhaust the numbers


class Change(Protocol):
    """One subject, locked, within one transaction."""

    def versions(self) -> list[StoredVersion]:
        """Return every version, deleted ones too, in ascending order."""
        ...

    def settings(self) -> Settings:
        """Return the subject's own settings."""
        ...

    def scopes(self) -> Mapping[str, Settings]:
        """Return the settings of the other scopes that were named when the change began, by name."""
        ...

    def restore(self, schema_id: int, key: bytes, shape: bytes, content: Content) -> StoredSchema:
        """Assign a content the id that it has in another registry; ids assigned later are higher.

        A content that has an id here gets this one as well: records may have either.

        Raises:
            ConflictError: ID_TAKEN, the id is another content's.
        """
        ...

    def put(self, number: int, key: bytes, shape: bytes, content: Content) -> StoredSchema:
        """Add a version of a content; return the content's schema, with a new id if the content is new.

        Args:
            number: one above the highest; the lock reserves it.
            key: the content's canonical key, 32 bytes.
            shape: the same without metadata and rules, 32 bytes.
            content: as submitted; the text is stored with the version, the rest only if the content is new.

        Raises:
            ConflictError: VERSION_CONFLICT, the subject has this version.
        """
        ...

    def add(self, number: int, schema: StoredSchema, text: str) -> None:
        """Add a version of a stored schema, with its own text.

        Args:
            number: unused.
            schema: the version's.
            text: as submitted for this version.

        Raises:
            ConflictError: VERSION_CONFLICT, the subject has this version.
        """
        ...

    def mark_deleted(self, numbers: Iterable[int]) -> None:
        """Delete versions softly."""
        ...

    def purge(self, numbers: Iterable[int]) -> None:
        """Delete versions permanently. Their ids keep their schemas."""
        ...

    def configure(self, settings: Settings) -> None:
        """Replace the subject's own settings."""
        ...


class SubjectReader(Protocol):
    """Reads schemas, subjects, versions and settings."""

    def schema(self, reader: Reader, schema_id: int) -> StoredSchema | None:
        """Return the schema of an id; an id that was assigned is never unknown again."""
        ...

    def by_guid(self, reader: Reader, prefix: bytes) -> StoredSchema | None:
        """Return the schema whose key begins with these 16 bytes."""
        ...

    def highest_id(self, reader: Reader) -> int:
        """Return the highest id that stands for a schema; 0 without any."""
        ...

    def version(self, reader: Reader, subject: str, number: int | None) -> tuple[StoredVersion, str] | None:
        """Return a version, deleted or not, and its own text; None = the latest that is not deleted.

        The time does not depend on the number of versions.
        """
        ...

    def all_versions(self, reader: Reader) -> list[StoredVersion]:
        """Return every version of every listed subject, deleted ones too, by subject and number."""
        ...

    def referrers(self, reader: Reader, subject: str, number: int | None = None) -> list[StoredVersion]:
        """Return the versions whose schemas refer to a version, or to any of the subject's, deleted ones too."""
        ...

    def by_shape(self, reader: Reader, subject: str, shape: bytes) -> list[tuple[StoredVersion, str]]:
        """Return the versions of a subject with this schema and any metadata, with their own texts.

        Deleted ones too, ascending. The time does not depend on the number of versions.
        """
        ...

    def versions(self, reader: Reader, subject: str) -> list[StoredVersion]:
        """Return every version of a subject, deleted ones too, in ascending order."""
        ...

    def text(self, reader: Reader, subject: str, number: int) -> str | None:
        """Return a version's own text, as it was submitted."""
        ...

    def uses(self, reader: Reader, schema_id: int) -> list[StoredVersion]:
        """Return every version that has the id, deleted ones too, by subject and number."""
        ...

    def subjects(self, reader: Reader) -> list[tuple[str, bool]]:
        """Return (name, whether it has a live version) of every listed subject with a version, sorted by name."""
        ...

    def settings(self, reader: Reader, subject: str) -> Settings:
        """Return a subject's own settings, or the global ones for `GLOBAL`."""
        ...

    def settings_of(self, reader: Reader, names: Sequence[str]) -> Mapping[str, Settings]:
        """Return the settings of several scopes at once; those without any are left out."""
        ...

    def all_settings(self, reader: Reader) -> Mapping[str, Settings]:
        """Return every scope that has settings of its own."""
        ...


class SubjectWriter(Protocol):
    """Changes one subject at a time, within the caller's transaction."""

    def change(
        self,
        work: UnitOfWork,
        subject: str,
        *,
        hidden: bool = False,
        scopes: Sequence[str] = (),
        also: Sequence[str] = (),
    ) -> AbstractContextManager[Change]:
        """Lock a subject, new or not, until the transaction ends.

        Args:
            work: the transaction; the caller commits it.
            subject: its name; `GLOBAL` for the global settings.
            hidden: do not list the subject, if it is new.
            scopes: other names whose settings `Change.scopes` returns.
            also: other subjects to lock, those that a schema refers to, in the order of their names.

        Raises:
            UnavailableError: DATABASE_UNAVAILABLE or DISK_FULL.
        """
        ...


def require_same_content(stored: StoredSchema, key: bytes) -> None:
    """Refuse to assign an id to another content.

    Raises:
        ConflictError: ID_TAKEN.
    """
    if stored.key != key:
        raise ConflictError(
            Reason.ID_TAKEN,
            f"Overwrite new schema with id {stored.id} is not permitted: the id stands for another schema, for ever",
            details={"schema": str(stored.id)},
        )
