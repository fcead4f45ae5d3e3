"""Catalogue of information resources (政务信息资源目录): life cycle of entries and the rules of their changes.

    draft ──publish──▶ published ──archive──▶ archived
                       published ⇄ suspended

An entry exists before its schema: once it is a draft, every version registered under its subject must classify
every field. Publishing checks what is registered, so that a schema from before the draft does not escape the rule. A
published entry may change its title, its conditions or its level (never below that of its fields), not its provider:
that is a merger of departments.

An entry with full metadata has a procedure of reviews above this (`registry.catalogue.procedure`), which calls it.

No program calls `history` yet.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from datetime import datetime

from registry.database.damaged_row import DamagedRow
from registry.database.keyset import MAX_PAGE
from registry.database.unit_of_work import Reader, UnitOfWork
from registry.directory.departments import Departments
from registry.directory.model import CatalogueEntry, DepartmentKind, DepartmentStatus, EntryState
from registry.directory.store import CatalogueStore
from registry.governance import classification
from schemas.errors import ConflictError, InvalidError, Reason
from schemas.names import Topic

__all__ = ["Catalogue"]


class Catalogue:
    """Service that creates, changes, publishes and archives entries.

    Args:
        store: of entries.
        departments: for the status of providers.
        clock: returns the time of a change, aware.
        on_saved: is told each version that is stored, in its transaction; for the search index.
    """

    def __init__(
        self,
        store: CatalogueStore,
        departments: Departments,
        *,
        clock: Callable[[], datetime],
        on_saved: Callable[[UnitOfWork, CatalogueEntry], None] = lambda _work, _entry: None,
    ) -> None:
        self._store = store
        self._on_saved = on_saved
        self._departments = departments
        self._clock = clock

    def create(
        self, work: UnitOfWork, entry: CatalogueEntry, *, others: Iterable[CatalogueEntry] | None = None
    ) -> CatalogueEntry:
        """Store a new entry, as version 1 and a draft, in its provider's zone.

        Args:
            work: the transaction.
            entry: to store.
            others: every entry that there is, where the caller has read them in *work*, before any other could get a
                code (`registry.catalogue.store.RecordStore.lock_codes`).

        Raises:
            InvalidError: DEPARTMENT_UNKNOWN, DEPARTMENT_INACTIVE or DEPARTMENT_KIND, for its provider; REQUEST_INVALID,
                when another resource has its national code, or the same resource another code or provider.
            ConflictError: ALREADY_EXISTS, for a name and major that are taken.
        """
        provider = self._departments.get(work, entry.provider)
        if provider.status is not DepartmentStatus.ACTIVE:
            raise InvalidError(
                Reason.DEPARTMENT_INACTIVE, f"the provider is {provider.status}; expected an active department"
            )
        if DepartmentKind.PROVIDER not in provider.kinds:
            raise InvalidError(
                Reason.DEPARTMENT_KIND,
                f"got a department of the kind {', '.join(provider.kinds)}; only a provider catalogues resources",
            )
        for other in self._store.all(work) if others is None else others:
            _check_clash(entry, other)
        draft = replace(entry, version=1, state=EntryState.DRAFT, zone=provider.zone)
        self._save(work, draft)
        return draft

    def change(self, work: UnitOfWork, entry: CatalogueEntry) -> CatalogueEntry:
        """Store a changed entry; its `version` is the one that the caller saw.

        Raises:
            InvalidError: RESOURCE_UNKNOWN; REQUEST_INVALID, when provider, code, state or the step of its records'
                times would change, or the level would fall.
            ConflictError: VERSION_CONFLICT, when it was changed since; TRANSITION_NOT_ALLOWED, for an archived entry.
        """
        current = self.get(work, entry.topic)
        if current.state is EntryState.ARCHIVED:
            raise _not_allowed(current, "changed")
        for name in ("provider", "code", "state", "round_times_to"):
            if getattr(entry, name) != getattr(current, name):
                raise InvalidError(Reason.REQUEST_INVALID, f"got another {name}; expected it as it was")
        if current.state is not EntryState.DRAFT and entry.level < current.level:
            raise InvalidError(
                Reason.REQUEST_INVALID,
                f"got the level {entry.level.name}, below {current.level.name}; the level of a published entry does "
                "not fall",
            )
        changed = replace(entry, version=entry.version + 1)
        self._save(work, changed)
        return changed

    def publish(
        self,
        work: UnitOfWork,
        topic: Topic,
        fields: Callable[[Reader, str], list[classification.ClassifiedField]],
        *,
        version: int,
    ) -> CatalogueEntry:
        """Publish a draft: its records are accepted and may be granted from then on.

        Args:
            work: the transaction.
            topic: of the entry.
            fields: returns the classification of every field registered under a subject
                (`SchemaLookup.full_classification`).
            version: the version that the caller saw.

        Raises:
            InvalidError: RESOURCE_UNKNOWN; SUBJECT_UNKNOWN, when no schema is registered; SCHEMA_UNCLASSIFIED;
                REQUEST_INVALID, when a field's level is above the entry's.
            ConflictError: TRANSITION_NOT_ALLOWED, unless it is a draft; VERSION_CONFLICT.
        """
        entry = self.get(work, topic)
        if entry.state is not EntryState.DRAFT:
            raise _not_allowed(entry, "published")
        highest = classification.highest_level(fields(work, entry.subject))
        if highest > entry.level:
            raise InvalidError(
                Reason.REQUEST_INVALID,
                f"the entry's level is {entry.level.name}, its highest field's is {highest.name}; raise the entry's: "
                "the higher wins (GB/T 43697-2024)",
            )
        published = replace(entry, state=EntryState.PUBLISHED, version=version + 1)
        self._save(work, published)
        return published

    def archive(self, work: UnitOfWork, topic: Topic, *, version: int) -> CatalogueEntry:
        """Archive a published entry or a draft.

        Raises:
            InvalidError: RESOURCE_UNKNOWN.
            ConflictError: TRANSITION_NOT_ALLOWED, when it is archived already; VERSION_CONFLICT.
        """
        entry = self.get(work, topic)
        if entry.state is EntryState.ARCHIVED:
            raise _not_allowed(entry, "archived")
        archived = replace(entry, state=EntryState.ARCHIVED, version=version + 1)
        self._save(work, archived)
        return archived

    def suspend(self, work: UnitOfWork, topic: Topic) -> CatalogueEntry:
        """Suspend a published entry: nothing is published or drawn until it is resumed.

        Raises:
            InvalidError: RESOURCE_UNKNOWN.
            ConflictError: TRANSITION_NOT_ALLOWED, unless it is published; VERSION_CONFLICT.
        """
        return self._move(work, topic, EntryState.PUBLISHED, EntryState.SUSPENDED, "suspended")

    def resume(self, work: UnitOfWork, topic: Topic) -> CatalogueEntry:
        """Resume a suspended entry.

        Raises:
            InvalidError: RESOURCE_UNKNOWN.
            ConflictError: TRANSITION_NOT_ALLOWED, unless it is suspended; VERSION_CONFLICT.
        """
        return self._move(work, topic, EntryState.SUSPENDED, EntryState.PUBLISHED, "resumed")

    def _move(
        self, work: UnitOfWork, topic: Topic, source: EntryState, target: EntryState, verb: str
    ) -> CatalogueEntry:
        entry = self.get(work, topic)
        if entry.state is not source:
            raise _not_allowed(entry, verb)
        moved = replace(entry, state=target, version=entry.version + 1)
        self._save(work, moved)
        return moved

    def succeed(self, work: UnitOfWork, topic: Topic, department: str, into: str) -> CatalogueEntry:
        """Let an entry go over to the department that has taken over the duties of its provider; its zone stays.

        Raises:
            InvalidError: RESOURCE_UNKNOWN.
            ConflictError: TRANSITION_NOT_ALLOWED, it has another provider, or is archived; VERSION_CONFLICT.
        """
        entry = self.get(work, topic)
        if entry.provider != department or entry.state is EntryState.ARCHIVED:
            raise _not_allowed(entry, "taken over")
        moved = replace(entry, provider=into, version=entry.version + 1)
        self._save(work, moved)
        return moved

    def next_code(
        self, work: UnitOfWork, topic: Topic, class_code: str, *, others: Collection[CatalogueEntry] | None = None
    ) -> str:
        """Return the resource code of a new entry of a class: that of its other majors, or the next serial number.

        Args:
            work: the transaction.
            topic: of the new entry.
            class_code: its class.
            others: see `create`.

        Raises:
            InvalidError: REQUEST_INVALID, its other majors are of another class.
        """
        entries = self._store.all(work) if others is None else others
        for other in entries:
            if other.topic.name == topic.name:
                if other.code.partition("/")[0] != class_code:
                    raise InvalidError(
                        Reason.REQUEST_INVALID,
                        f"got the class {class_code}; expected that of the resource's other majors, whose code is "
                        f"{other.code}",
                    )
                return other.code
        serials = [
            int(code) for prefix, _, code in (one.code.partition("/") for one in entries) if prefix == class_code
        ]
        return f"{class_code}/{max(serials, default=0) + 1:06d}"

    def get(self, reader: Reader, topic: Topic) -> CatalogueEntry:
        """Return the current version.

        Raises:
            InvalidError: RESOURCE_UNKNOWN.
        """
        entry = self._store.get(reader, topic)
        if entry is None:
            raise _unknown(topic)
        return entry

    def visible(self, reader: Reader, topic: Topic, viewer: str | None) -> CatalogueEntry:
        """Return the current version of an entry that a department sees (`CatalogueEntry.is_visible_to`).

        Raises:
            InvalidError: RESOURCE_UNKNOWN, there is none, or the department does not see it.
        """
        entry = self.get(reader, topic)
        if not entry.is_visible_to(viewer):
            raise _unknown(topic)
        return entry

    def all(self, reader: Reader) -> list[CatalogueEntry]:
        """Return the current version of every entry, by topic."""
        return self._store.all(reader)

    def page(
        self, reader: Reader, *, after: Topic | None = None, limit: int = MAX_PAGE, viewer: str | None = None
    ) -> list[CatalogueEntry | DamagedRow]:
        """Return the entries that a department sees, by topic; fewer than *limit* only at the end.

        Args:
            reader: to read with.
            after: topic, None = from the beginning.
            limit: at most so many.
            viewer: see `CatalogueEntry.is_visible_to`.
        """
        return self._store.page(reader, after=after, limit=limit, viewer=viewer)

    def provided_by(self, reader: Reader, department_id: str) -> list[Topic]:
        """Return the topics of a department's entries, drafts and archived ones too, sorted."""
        return self._store.provided_by(reader, department_id)

    def history(self, reader: Reader, topic: Topic) -> list[tuple[datetime, CatalogueEntry]]:
        """Return every version and when it was stored, oldest first."""
        return self._store.history(reader, topic)

    def governs(self, reader: Reader, subject: str) -> bool:
        """Return whether a subject belongs to an entry, so that its fields must be classified."""
        if not subject.endswith("-value"):
            return False
        try:
            topic = Topic.parse(subject.removesuffix("-value"))
        except InvalidError:
            return False
        return self._store.get(reader, topic) is not None

    def other_majors(self, reader: Reader, subject: str) -> list[Topic]:
        """Return the topics of the other majors of a subject's resource, in their order; none if it has no entry."""
        if not self.governs(reader, subject):
            return []
        topic = Topic.parse(subject.removesuffix("-value"))
        provided = self._store.provided_by(reader, self.get(reader, topic).provider)
        return sorted(other for other in provided if other.name == topic.name and other != topic)

    def _save(self, work: UnitOfWork, entry: CatalogueEntry) -> None:
        try:
            self._store.save(work, entry, self._clock())
        except ConflictError as error:
            if entry.version == 1:
                raise ConflictError(
                    Reason.ALREADY_EXISTS, f"the catalogue has an entry {entry.topic} already; choose another name"
                ) from error
            raise
        self._on_saved(work, entry)


def _check_clash(entry: CatalogueEntry, other: CatalogueEntry) -> None:
    same = other.topic.name == entry.topic.name
    if same != (other.code == entry.code):
        raise InvalidError(
            Reason.REQUEST_INVALID,
            f"the resource {other.topic.name} has the code {other.code}; a resource has one national code in all its "
            "majors, and no other resource has it",
        )
    if same and other.provider != entry.provider:
        raise InvalidError(
            Reason.REQUEST_INVALID, f"another department provides {other.topic.name}; all its majors have one provider"
        )


def _unknown(topic: Topic) -> InvalidError:
    return InvalidError(Reason.RESOURCE_UNKNOWN, f"the catalogue has no entry {topic}; list it to see what there is")


def _not_allowed(entry: CatalogueEntry, verb: str) -> ConflictError:
    return ConflictError(
        Reason.TRANSITION_NOT_ALLOWED, f"the entry {entry.topic} is {entry.state} and cannot be {verb}"
    )
