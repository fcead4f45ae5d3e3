"""Access control and audit: the ports that the REST API calls. Knows no web framework."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

from registry.database.unit_of_work import Reader, UnitOfWork
from registry.rest.responses import page
from registry.subjects.versions import is_view
from schemas.access import Action, Actor
from schemas.canonical import Json

_T = TypeVar("_T")

__all__ = ["AccessControl", "AuditHandle", "Listing", "Visibility"]


class AuditHandle(Protocol):
    """The audit entry of one act, while it goes on."""

    def note(self, **facts: Json) -> None:
        """Add facts to the entry. Never a record's value."""
        ...


class Visibility(Protocol):
    """A list while it is made: one question for the subjects of all of it, and one entry at most."""

    def visible(self, subject: str) -> bool:
        """Return whether a subject may be named to the actor. Asked for many, it asks its own store once."""
        ...

    def record(self, subjects: Iterable[str]) -> None:
        """Take down which subjects the answer names."""
        ...


class Listing:
    """A list of subjects, or of what belongs to them, as handlers make it.

    Args:
        visibility: what may be named; it takes down what was.
    """

    def __init__(self, visibility: Visibility) -> None:
        self._visibility = visibility

    def visible(self, subject: str) -> bool:
        """Return whether a subject may be named; views belong to their grants alone."""
        return not is_view(subject) and self._visibility.visible(subject)

    def page(self, items: list[_T], offset: int, limit: int, *, of: Callable[[_T], str]) -> list[_T]:
        """Return a page of items, each of the subject that *of* gives, and take down that it names them."""
        part = page(items, offset, limit)
        self.record(map(of, part))
        return part

    def record(self, subjects: Iterable[str]) -> None:
        """Take down which subjects the answer names."""
        self._visibility.record(subjects)


class AccessControl(Protocol):
    """Decides whether an act may go on, and records it."""

    def act(
        self, actor: Actor, action: Action, resource: str, texts: Mapping[str, str] | None = None
    ) -> AbstractContextManager[tuple[UnitOfWork, AuditHandle]]:
        """Open an act that changes something, within a transaction; leaving the block records and commits it.

        Args:
            actor: who acts.
            action: what for.
            resource: a subject; empty for an act on the registry as a whole.
            texts: free texts that the act would store, by name; they may hold no personal number.

        Raises:
            RefusedError: the actor may not.
            UnavailableError: the act cannot be recorded, so it does not happen.
        """
        ...

    def read(self, actor: Actor, action: Action, resource: str) -> AbstractContextManager[Reader]:
        """Open a read under a subject; one that leaves an entry is recorded before anything is read.

        Args:
            actor: who reads.
            action: SCHEMA_READ or SCHEMA_READ_BY_ID.
            resource: a subject; empty for a read of all.

        Raises:
            RefusedError: the actor may not.
            UnavailableError: the read cannot be recorded, so nothing is read.
        """
        ...

    def list(self, actor: Actor, *, admitted: bool = False) -> AbstractContextManager[Visibility]:
        """Open a list of subjects; leaving the block records how many it showed whose reads leave entries.

        Args:
            actor: who acts.
            admitted: another act has let the actor in already; else it must be allowed to list.

        Raises:
            RefusedError: the actor may not.
            UnavailableError: the list cannot be recorded, so it is not given.
        """
        ...

    def readable_subject(self, actor: Actor, origin: str, others: Callable[[], Iterable[str]]) -> str:
        """Return the subject under which an actor reads a schema by its id; it leaves no entry.

        A department that registered a schema that everybody has under a closed subject first must not close its id to
        everybody.

        Args:
            actor: who reads.
            origin: the subject under which the schema was first registered; the answer, where the actor may read none.
            others: gives the subjects that have it now; asked only where *origin* may not be read.
        """
        ...

    def permits_from_cache(self, actor: Actor, action: Action, resource: str) -> bool:
        """Return whether a read is allowed and leaves no entry, as far as that is known without waiting.

        False is no refusal: `read` has to be asked. True is a decision of its own, made each time, on attributes of the
        actor that are less than a second old. Called on the server's event loop, so it may not wait for anything.

        Args:
            actor: who reads.
            action: SCHEMA_READ_BY_ID.
            resource: the subject under which the schema was first registered.
        """
        ...
