"""Answers of single rooms in the form that decisions ask for: identities, catalogue, views.

Each class here is one thin joint between a room and `exchange.authorization.attributes` or the record path; no rule
of its own.
"""

from collections.abc import Callable, Sequence
from datetime import datetime

from typing_extensions import override

from exchange.access.decision.policy import Resource
from exchange.access.decision.roles import Standing
from exchange.authorization.attributes import CatalogueSource, IdentitySource, Look
from exchange.identity.enrolment import CertificateStatus, Connectors
from registry.database.unit_of_work import UnitOfWork
from registry.directory.catalogue import Catalogue
from registry.directory.departments import Departments
from registry.directory.model import DepartmentStatus, EntryState
from registry.governance import classification
from registry.subjects.lookup import Subjects
from schemas.access import Actor, ActorKind, Level
from schemas.errors import InvalidError, Reason
from schemas.names import Topic

__all__ = ["CatalogueAttributes", "IdentityAttributes"]


class IdentityAttributes(IdentitySource):
    """Identities and departments → standing and signing keys."""

    def __init__(
        self, look: Look, connectors: Connectors, departments: Departments, *, now: Callable[[], datetime]
    ) -> None:
        self._look = look
        self._connectors = connectors
        self._departments = departments
        self._now = now

    @override
    def standing(self, actor: Actor, work: UnitOfWork | None = None, *, hold: bool = False) -> Standing:
        """Return the standing now. A person's token was checked when it was presented."""
        if work is None:
            with self._look() as own:
                return self.standing(actor, own, hold=hold)
        machine = actor.kind is ActorKind.MACHINE and actor.certificate
        if machine and self._connectors.status(work, actor.certificate, hold=hold) is CertificateStatus.REVOKED:
            return Standing.REVOKED
        if actor.department:
            try:
                department = self._departments.get(actor.department)
            except InvalidError as error:
                if error.reason is Reason.DEPARTMENT_UNKNOWN:
                    return Standing.DEPARTMENT_INACTIVE
                raise
            if department.status is not DepartmentStatus.ACTIVE:
                return Standing.DEPARTMENT_INACTIVE
        return Standing.ACTIVE

    @override
    def signing_key(self, actor: Actor, work: UnitOfWork) -> bytes | None:
        try:
            return self._connectors.signing_key(work, actor.department, actor.id, self._now())
        except InvalidError as error:
            if error.reason is not Reason.NOT_FOUND:
                raise
            return None

    def certificate_expires(self, actor: Actor) -> datetime:
        """Return the end of the certificate that the actor presents.

        Raises:
            InvalidError: NOT_FOUND, the pool never issued it.
        """
        with self._look() as work:
            for held in self._connectors.certificates(work, actor.department, actor.id):
                if held.serial == actor.certificate:
                    return held.not_after
        raise InvalidError(Reason.NOT_FOUND, "the pool has not issued this certificate; enrol anew")


class CatalogueAttributes(CatalogueSource):
    """Catalogue and subjects → resources and levels."""

    def __init__(self, catalogue: Catalogue, subjects: Subjects) -> None:
        self._catalogue = catalogue
        self._subjects = subjects

    @override
    def resource(self, topic: Topic) -> Resource | None:
        try:
            entry = self._catalogue.get(topic)
        except InvalidError as error:
            if error.reason is Reason.RESOURCE_UNKNOWN:
                return None
            raise
        return Resource(
            topic=topic, provider=entry.provider, published=entry.state is EntryState.PUBLISHED, zone=entry.zone
        )

    @override
    def level(self, topic: Topic, fields: Sequence[str]) -> Level | None:
        try:
            return classification.highest_level(self._subjects.classification(topic.subject), fields)
        except InvalidError as error:
            if error.reason in {Reason.SUBJECT_UNKNOWN, Reason.FIELD_UNKNOWN}:
                return None
            raise
