"""Schema access: the one decision on who reads which schema, for gRPC and the registry's REST API alike.

    a view's subject    the two departments of its grant, auditors, the data authority; no right opens it
    a department's own  its catalogued resources, and the subjects in its own context
    profile, rights     what the configuration opens beside (`registry.governance.subject_rights`)

What nothing allows is denied. Reads under a view's subject and under a restricted one leave an entry. The standing and
the role of the actor are decided by the caller of this module, in the same step.
"""

from collections.abc import Callable, Iterable
from functools import cache

from exchange.access.grants.store import AccessStore
from registry.database.unit_of_work import Database
from registry.directory.catalogue import Catalogue
from registry.governance.subject_rights import Rights, SubjectOperation
from registry.subjects import contexts
from registry.subjects.versions import grant_of_view, is_view
from schemas.access import Actor, Allow, Deny, Role
from schemas.errors import PoolError, Reason
from schemas.names import Topic

__all__ = ["SchemaAccess"]

_SEE_ALL = frozenset({Role.DATA_AUTHORITY, Role.AUDITOR})
_ALLOW = Allow()


class SchemaAccess:
    """Decides on reads of schemas.

    Args:
        database: opens readers.
        catalogue: whose resource a subject belongs to.
        grants: whose grant a view belongs to; None where there are no grants, so that nobody of a department reads one.
        rights: what the configuration gives.
    """

    def __init__(self, database: Database, catalogue: Catalogue, grants: AccessStore | None, *, rights: Rights) -> None:
        self._database = database
        self._catalogue = catalogue
        self._grants = grants
        self.rights = rights

    def decide(
        self,
        actor: Actor,
        operation: SubjectOperation,
        subject: str,
        owner: Callable[[str], str | None] | None = None,
    ) -> Allow | Deny:
        """Decide a read of an actor in standing; what is open comes first, since it needs no question.

        Args:
            actor: who reads.
            operation: READ or READ_BY_ID.
            subject: its name; empty for a list, which shows no more than what each subject's own decision lets through.
            owner: returns a subject's department; None = ask the catalogue.
        """
        if actor.role in _SEE_ALL:
            return _ALLOW
        if is_view(subject):
            return self._decide_view(actor, subject)
        if self.rights.profile_allows(operation, subject) or self.rights.allows(actor, operation, subject):
            return _ALLOW
        if not subject and (actor.department or self.rights.allows_anywhere(actor, operation)):
            return _ALLOW
        if actor.department and actor.department == (owner or self.owner)(subject):
            return _ALLOW
        return Deny(
            Reason.RIGHT_MISSING,
            f"{operation} is not open to you here; ask the operator for a right to {operation} under this subject",
        )

    def decide_without_waiting(self, actor: Actor, operation: SubjectOperation, subject: str) -> bool:
        """Return whether a read is allowed and leaves no entry, as far as the names and rights say; False = ask."""
        if self.is_recorded(subject):
            return False
        return bool(self.decide(actor, operation, subject, contexts.owning_department))

    def is_recorded(self, subject: str) -> bool:
        """Return whether each read under a subject leaves an entry."""
        return is_view(subject) or self.rights.is_restricted(subject)

    def readable(self, actor: Actor, operation: SubjectOperation) -> Callable[[str], bool]:
        """Return a function that decides on many subjects, and asks the catalogue once, only where it matters."""
        if actor.role in _SEE_ALL:
            return lambda _: True

        @cache
        def owners() -> dict[str, str]:
            with self._database.read() as reader:
                return {str(entry.topic): entry.provider for entry in self._catalogue.all(reader)}

        def owner(subject: str) -> str | None:
            return contexts.owning_department(subject) or owners().get(subject.removesuffix("-value"))

        return lambda subject: bool(self.decide(actor, operation, subject, owner))

    def readable_subject(self, actor: Actor, origin: str, others: Callable[[], Iterable[str]]) -> str:
        """Return the subject under which an actor reads a schema by its id; *origin*, where it may read none.

        A department that registered a schema that everybody has under a closed subject first must not close its id to
        everybody.

        Args:
            actor: who reads.
            origin: the subject under which the schema was first registered.
            others: gives the subjects that have it now; asked only where *origin* may not be read.
        """
        operation = SubjectOperation.READ_BY_ID
        if self.decide(actor, operation, origin):
            return origin
        # A schema that everybody has may stand under thousands of subjects; those that leave no entry come first.
        return next(filter(self.readable(actor, operation), sorted(others(), key=self.is_recorded)), origin)

    def owner(self, subject: str) -> str | None:
        """Return the department whose subject it is, None for a subject without one."""
        owner = contexts.owning_department(subject)
        if owner:
            return owner
        try:
            topic = Topic.parse(subject.removesuffix("-value"))
            with self._database.read() as reader:
                return self._catalogue.get(reader, topic).provider
        except PoolError as error:
            if error.reason in {Reason.NAME_INVALID, Reason.RESOURCE_UNKNOWN}:
                return None
            raise

    def _decide_view(self, actor: Actor, subject: str) -> Allow | Deny:
        if actor.department and actor.department in self._parties(grant_of_view(subject)):
            return _ALLOW
        return Deny(
            Reason.RIGHT_MISSING,
            "the schema of what a grant delivers is for the two departments of the grant and for auditors",
        )

    def _parties(self, grant_id: str) -> tuple[str, ...]:
        """Return consumer and provider of a grant; none for an unknown or a forged one."""
        if self._grants is None:
            return ()
        try:
            with self._database.read() as reader:
                grant = self._grants.get(reader, grant_id)
        except PoolError as error:
            if error.reason in {Reason.GRANT_UNKNOWN, Reason.GRANT_FORGED}:
                return ()
            raise
        return grant.consumer, grant.provider
