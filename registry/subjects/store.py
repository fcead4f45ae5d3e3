"""Ports of the subjects room: reading and changing subjects. `memory` and `registry.postgres.subjects` implement them.

Three facts, and each has one unique key, so that no election and no global lock is needed:

    a content has one id          unique (content key)       never freed, never given to another content
    a version has one content     unique (subject, number)   1, 2, 3 … without a gap
    a subject has one writer      a lock per subject         registrations of other subjects go on

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
    "MOST_GAPS",
    "MOST_IMPORTED",
    "Change",
    "SubjectReader",
    "SubjectWriter",
    "refuse_taken",
]

MOST_IMPORTED = 2**30  # no import takes the numbering beyond: half of all ids are left to go on with
MOST_GAPS = 1_000_000  # ids that may lack a version, so that an imported id cannot use the numbers up


class Change(Protocol):
    """One subject, locked, within one transaction."""

    def versions(self) -> list[StoredVersion]:
        """Return every version, deleted ones too, in ascending order."""
        ...

    def settings(self) -> Settings:
        """Return the subject's own settings."""
        ...

    def scopes(self) -> Mapping[str, Settings]:
        """Return the settings of the other scopes that were asked for when the change began, by name."""
        ...

    def restore(self, schema_id: int, key: bytes, shape: bytes, content: Content) -> StoredSchema:
        """Return a content the id that it has elsewhere; ids given from now on are higher.

        A content that has an id here gets this one beside it: records may carry either.

        Raises:
            ConflictError: ID_TAKEN, when the id stands for another content.
        """
        ...

    def put(self, number: int, key: bytes, shape: bytes, content: Content) -> StoredSchema:
        """Add a version of a content; give the content's schema, with a new id if the content is new.

        Args:
            number: one above the highest; the lock keeps it free.
            key: the content's canonical key, 32 bytes.
            shape: the same without metadata and rules, 32 bytes.
            content: as submitted; its text is the version's own, the rest is kept only if it is new.

        Raises:
            ConflictError: VERSION_CONFLICT, the subject has this version.
        """
        ...

    def add(self, number: int, schema: StoredSchema, text: str) -> None:
        """Add a version of a schema that is there, with its own text.

        Args:
            number: that is free.
            schema: what the version stands for.
            text: as submitted for this version.

        Raises:
            ConflictError: VERSION_CONFLICT, the subject has this version.
        """
        ...

    def mark_deleted(self, numbers: Iterable[int]) -> None:
        """Delete versions softly."""
        ...

    def purge(self, numbers: Iterable[int]) -> None:
        """Delete versions permanently. Their ids stay what they were."""
        ...

    def configure(self, settings: Settings) -> None:
        """Replace the subject's own settings."""
        ...


class SubjectReader(Protocol):
    """Reads schemas, subjects, versions and settings."""

    def schema(self, reader: Reader, schema_id: int) -> StoredSchema | None:
        """Return what an id stands for; purged or not, an id that was given is known forever."""
        ...

    def by_guid(self, reader: Reader, prefix: bytes) -> StoredSchema | None:
        """Return the schema whose key begins with these 16 bytes."""
        ...

    def highest_id(self, reader: Reader) -> int:
        """Return the highest id that stands for a schema; 0 without any."""
        ...

    def held(self, reader: Reader, subject: str, number: int | None) -> tuple[StoredVersion, str] | None:
        """Return a version, deleted or not, and its own text; None = the latest that is not deleted.

        Takes as long however many versions there are.
        """
        ...

    def listed(self, reader: Reader) -> list[StoredVersion]:
        """Return every version of every listed subject, deleted ones too, by subject and number."""
        ...

    def referrers(self, reader: Reader, subject: str, number: int | None = None) -> list[StoredVersion]:
        """Return the versions whose schemas refer to a version, or to any of the subject's, deleted ones too."""
        ...

    def by_shape(self, reader: Reader, subject: str, shape: bytes) -> list[tuple[StoredVersion, str]]:
        """Return the versions of a subject with this schema, whatever its metadata, and their own texts.

        Deleted ones too, ascending. Takes as long however many versions there are.
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

    def configured(self, reader: Reader) -> Mapping[str, Settings]:
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
            work: the transaction; whoever opened it commits it.
            subject: its name; `GLOBAL` for the settings that hold everywhere.
            hidden: a subject made here is not listed.
            scopes: other names whose settings `Change.scopes` shall give.
            also: other subjects to lock, those that a schema refers to; taken in the order of their names.

        Raises:
            UnavailableError: DATABASE_UNAVAILABLE or DISK_FULL.
        """
        ...


def refuse_taken(held: StoredSchema, key: bytes) -> None:
    """Refuse to let an id mean anything but what it means already.

    Raises:
        ConflictError: ID_TAKEN.
    """
    if held.key != key:
        raise ConflictError(
            Reason.ID_TAKEN,
            f"Overwrite new schema with id {held.id} is not permitted: the id stands for another schema, for ever",
            details={"schema": str(held.id)},
        )
