"""What the registry remembers, as ports; `memory.py` and `postgres.py` hold the adapters.

Schemas. Three facts, and each has one unique key, so that no election and no global lock is needed:

    a content has one id          unique (content key)       never freed, never given to another content
    a version has one content     unique (subject, number)   1, 2, 3 … without a gap
    a subject has one writer      a lock per subject         registrations of other subjects go on

`SubjectStore.change` opens one transaction with that lock; everything within becomes durable together or not at
all. Any number of processes may do so at once.

Departments and catalogue entries are documents with a version number: `save` names the version that it was made
from, and loses against a faster one. Every version is kept.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from registry.subjects.model import Content, Settings, StoredSchema, StoredVersion
from schemas.errors import ConflictError, Reason

__all__ = [
    "MOST_GAPS",
    "MOST_IMPORTED",
    "Change",
    "SubjectStore",
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


class SubjectStore(Protocol):
    """Schemas, subjects, versions and settings."""

    def change(
        self, subject: str, *, hidden: bool = False, scopes: Sequence[str] = (), also: Sequence[str] = ()
    ) -> AbstractContextManager[Change]:
        """Lock a subject, new or not; commit at the end of the block, roll back on an exception.

        Args:
            subject: its name; `GLOBAL` for the settings that hold everywhere.
            hidden: a subject made here is not listed.
            scopes: other names whose settings `Change.scopes` shall give.
            also: other subjects to lock, those that a schema refers to; taken in the order of their names.

        Raises:
            UnavailableError: DATABASE_UNAVAILABLE, DISK_FULL or OUTCOME_UNKNOWN.
        """
        ...

    def schema(self, schema_id: int) -> StoredSchema | None:
        """Return what an id stands for; purged or not, an id that was given is known forever."""
        ...

    def by_guid(self, prefix: bytes) -> StoredSchema | None:
        """Return the schema whose key begins with these 16 bytes."""
        ...

    def highest_id(self) -> int:
        """Return the highest id that stands for a schema; 0 without any."""
        ...

    def held(self, subject: str, number: int | None) -> tuple[StoredVersion, str] | None:
        """Return a version, deleted or not, and its own text; None = the latest that is not deleted.

        Takes as long however many versions there are.
        """
        ...

    def listed(self) -> list[StoredVersion]:
        """Return every version of every listed subject, deleted ones too, by subject and number."""
        ...

    def referrers(self, subject: str, number: int | None = None) -> list[StoredVersion]:
        """Return the versions whose schemas refer to a version, or to any of the subject's, deleted ones too."""
        ...

    def by_shape(self, subject: str, shape: bytes) -> list[tuple[StoredVersion, str]]:
        """Return the versions of a subject with this schema, whatever its metadata, and their own texts.

        Deleted ones too, ascending. Takes as long however many versions there are.
        """
        ...

    def versions(self, subject: str) -> list[StoredVersion]:
        """Return every version of a subject, deleted ones too, in ascending order."""
        ...

    def text(self, subject: str, number: int) -> str | None:
        """Return a version's own text, as it was submitted."""
        ...

    def uses(self, schema_id: int) -> list[StoredVersion]:
        """Return every version that has the id, deleted ones too, by subject and number."""
        ...

    def subjects(self) -> list[tuple[str, bool]]:
        """Return (name, whether it has a live version) of every listed subject with a version, sorted by name."""
        ...

    def settings(self, subject: str) -> Settings:
        """Return a subject's own settings, or the global ones for `GLOBAL`."""
        ...

    def settings_of(self, names: Sequence[str]) -> Mapping[str, Settings]:
        """Return the settings of several scopes at once; those without any are left out."""
        ...

    def configured(self) -> Mapping[str, Settings]:
        """Return every scope that has settings of its own."""
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
