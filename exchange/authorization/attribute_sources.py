"""Attribute sources: adapters that read what a decision needs from identities, departments and the catalogue.

Each class adapts one package to a port of `exchange.authorization.attributes`; it has no rule of its own.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial

from typing_extensions import override

from exchange.access.decision.parties import DepartmentProfile
from exchange.access.decision.policy import Resource
from exchange.access.decision.roles import Standing
from exchange.authorization.attributes import CatalogueSource, IdentitySource, Levels, Profiles
from exchange.identity.enrolment import CertificateStatus, Connectors
from exchange.identity.tokens import Users
from registry.database.unit_of_work import Database, Reader, UnitOfWork
from registry.directory.catalogue import Catalogue
from registry.directory.departments import Departments
from registry.directory.hierarchy import area_of
from registry.directory.model import (
    PUBLIC_STATES,
    Department,
    DepartmentKind,
    DepartmentStatus,
    EntryState,
    GovernmentLevel,
)
from registry.governance import classification
from registry.subjects.lookup import SchemaLookup
from schemas.access import Actor, ActorKind, Level
from schemas.errors import CorruptError, InvalidError, Reason
from schemas.names import Topic

__all__ = ["CatalogueAttributes", "IdentityAttributes"]

_NOT_PERSONAL = "N"
_MOST_SINGLE_READS = 8  # departments that are read one by one; of more, the whole table


class IdentityAttributes(IdentitySource):
    """Identities and departments → standing and signing keys."""

    def __init__(
        self,
        database: Database,
        connectors: Connectors,
        departments: Departments,
        users: Users,
        *,
        now: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._connectors = connectors
        self._users = users
        self._departments = departments
        self._now = now

    @override
    def standing(self, reader: Reader, actor: Actor) -> Standing:
        """Return the current standing. A person's token was checked when it was presented."""
        if _presents_certificate(actor):
            status = self._connectors.status(reader, actor.certificate)
            if status is CertificateStatus.REVOKED:
                return Standing.REVOKED
        return self._department(reader, actor)

    @override
    def lock_standing(self, work: UnitOfWork, actor: Actor) -> Standing:
        if _presents_certificate(actor):
            status = self._connectors.lock_status(work, actor.certificate)
            if status is CertificateStatus.REVOKED:
                return Standing.REVOKED
        return self._department(work, actor)

    def _department(self, reader: Reader, actor: Actor) -> Standing:
        if actor.department:
            try:
                department = self._departments.get(reader, actor.department)
            except InvalidError as error:
                if error.reason is Reason.DEPARTMENT_UNKNOWN:
                    return Standing.DEPARTMENT_INACTIVE
                raise
            return self._standing_of(department)
        return Standing.ACTIVE

    def _standing_of(self, department: Department) -> Standing:
        if department.status is not DepartmentStatus.ACTIVE:
            return Standing.DEPARTMENT_INACTIVE
        if department.contract_ends is not None and self._now() >= department.contract_ends:
            return Standing.CONTRACT_ENDED
        return Standing.ACTIVE

    @override
    def signing_key(self, reader: Reader, actor: Actor) -> bytes | None:
        try:
            return self._connectors.signing_key(reader, actor.department, actor.id, self._now())
        except InvalidError as error:
            if error.reason is not Reason.NOT_FOUND:
                raise
            return None

    @override
    def persons(self, reader: Reader, accounts: Collection[str]) -> Mapping[str, str]:
        return self._users.persons(reader, accounts)

    @override
    def profiles(self, reader: Reader, departments: Collection[str]) -> Profiles:
        return {one.id: _profile(one) for one in self._departments.some(reader, departments)}

    def standing_now(self, actor: Actor) -> Standing:
        """Return the current standing of an actor."""
        with self._database.read() as reader:
            return self.standing(reader, actor)

    def standings(self, actors: Iterable[Actor]) -> dict[str, Standing]:
        """Return the current standings of connectors, by certificate, with two or three queries for all of them."""
        connectors = {actor.certificate: actor.department for actor in actors}
        with self._database.read() as reader:
            statuses = self._connectors.statuses(reader, connectors)
            departments = self._of_departments(reader, set(connectors.values()))
        return {
            certificate: Standing.REVOKED
            if statuses[certificate] is CertificateStatus.REVOKED
            else departments.get(department, Standing.DEPARTMENT_INACTIVE)
            for certificate, department in connectors.items()
        }

    def _of_departments(self, reader: Reader, departments: Collection[str]) -> Mapping[str, Standing]:
        """Return the standings of departments by id, without those that are unknown or not written by the pool."""
        if len(departments) > _MOST_SINGLE_READS:
            return {one.id: self._standing_of(one) for one in self._departments.all(reader)}
        found = {}
        for one in departments:
            with suppress(InvalidError, CorruptError):
                found[one] = self._standing_of(self._departments.get(reader, one))
        return found

    def certificate_expires(self, actor: Actor) -> datetime:
        """Return the expiry of the certificate that the actor presents.

        Raises:
            InvalidError: NOT_FOUND, the pool never issued it.
        """
        with self._database.read() as reader:
            for certificate in self._connectors.certificates(reader, actor.department, actor.id):
                if certificate.serial == actor.certificate:
                    return certificate.not_after
        raise InvalidError(Reason.NOT_FOUND, "the pool has not issued this certificate; enrol again")


class CatalogueAttributes(CatalogueSource):
    """Catalogue and subjects → resources and levels."""

    def __init__(self, catalogue: Catalogue, lookup: SchemaLookup) -> None:
        self._catalogue = catalogue
        self._lookup = lookup

    @override
    def resource(self, reader: Reader, topic: Topic) -> Resource | None:
        try:
            entry = self._catalogue.get(reader, topic)
        except InvalidError as error:
            if error.reason is Reason.RESOURCE_UNKNOWN:
                return None
            raise
        return Resource(
            topic=topic,
            provider=entry.provider,
            published=entry.state is EntryState.PUBLISHED,
            zone=entry.zone,
            time_step=entry.time_step,
            share_type=str(entry.share_type),
            refusal_basis=entry.legal_basis,
            in_catalogue=entry.state in PUBLIC_STATES,
        )

    @override
    def not_personal(self, reader: Reader, topic: Topic) -> Collection[str] | None:
        try:
            classified = self._lookup.classification(reader, topic.subject)
        except InvalidError as error:
            if error.reason is not Reason.SUBJECT_UNKNOWN:
                raise
            return None
        return _top_levels(classified) - _top_levels(one for one in classified if one.personal != _NOT_PERSONAL)

    @override
    def levels(self, reader: Reader, topic: Topic) -> Levels:
        try:
            classified = self._lookup.classification(reader, topic.subject)
        except InvalidError as error:
            if error.reason is not Reason.SUBJECT_UNKNOWN:
                raise
            return lambda _: None
        return partial(_highest, classified)


def _top_levels(classified: Iterable[classification.ClassifiedField]) -> set[str]:
    return {field.path.partition(".")[0] for field in classified}


_RANK = {level: rank for rank, level in enumerate(GovernmentLevel)}


_ASKING = frozenset({DepartmentKind.CONSUMER, DepartmentKind.CONTRACTOR, DepartmentKind.PUBLIC})


def _profile(department: Department) -> DepartmentProfile:
    return DepartmentProfile(
        id=department.id,
        zone=department.zone,
        rank=_RANK[department.level],
        division_code=department.division_code,
        area=area_of(department),
        public=DepartmentKind.PUBLIC in department.kinds,
        contractor=department.is_contractor,
        asks=bool(_ASKING & {*department.kinds}),
    )


def _highest(classified: Sequence[classification.ClassifiedField], fields: Collection[str]) -> Level | None:
    try:
        return classification.highest_level(classified, fields)
    except InvalidError as error:
        if error.reason is not Reason.FIELD_UNKNOWN:
            raise
        return None


def _presents_certificate(actor: Actor) -> bool:
    return actor.kind is ActorKind.MACHINE and bool(actor.certificate)
