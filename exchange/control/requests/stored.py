"""Stored requests: the request of each grant, as it is stored or, of a grant of before, as its row tells it.

It is the port by which other services read requests with their state, history and due dates:

    requests = StoredRequests(store, attributes)
    request = requests.of(reader, grant)                    the request of a grant that was read
    requests.some(reader, grants)                           of many, in one query
    due_of(request, attributes.rules(reader))               which clock runs, and until when (`due_dates`)
    request.history                                         every event: article, profile, late, violation, reason

The grant's row is sealed, and says in which state both are: where a restore or the pool's own timer has changed it
alone, the request follows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from exchange.authorization.attributes import AttributeProvider
from exchange.requests.model import Mode, Office, RequestState, ShareRequest, Signature
from exchange.requests.store import RequestStore
from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import Reader, UnitOfWork
from registry.directory.model import ShareType
from schemas.access import Grant, Level
from schemas.identifiers import time_of_uuid7
from schemas.names import Topic

__all__ = ["StoredRequests", "received_at", "request_of", "scenario_of"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class StoredRequests:
    """Reads and writes the requests of grants.

    Args:
        store: of requests.
        attributes: of resources, for requests that are not stored.
    """

    def __init__(self, store: RequestStore, attributes: AttributeProvider) -> None:
        self._store = store
        self._attributes = attributes

    def of(self, reader: Reader, grant: Grant) -> ShareRequest:
        """Return the request of a grant.

        Raises:
            CorruptError: ROW_FORGED, its row is not one that the pool wrote.
        """
        stored = self._store.get(reader, grant.id)
        return self._derived(reader, grant, {}) if stored is None else _following(stored, grant)

    def some(self, reader: Reader, grants: Sequence[Grant]) -> Mapping[str, ShareRequest | DamagedRow]:
        """Return the requests of grants by their ids; one whose row the pool did not write is named."""
        stored = self._store.some(reader, {grant.id for grant in grants})
        found: dict[str, ShareRequest | DamagedRow] = {}
        known: dict[Topic, ShareType] = {}
        for grant in grants:
            one = stored.get(grant.id)
            if one is None:
                found[grant.id] = self._derived(reader, grant, known)
            else:
                found[grant.id] = one if isinstance(one, DamagedRow) else _following(one, grant)
        return found

    def put(self, work: UnitOfWork, request: ShareRequest) -> None:
        """Store a request; the caller holds the lock of its grant.

        Raises:
            ConflictError: VERSION_CONFLICT.
            CorruptError: ROW_FORGED.
        """
        self._store.put(work, request)

    def _derived(self, reader: Reader, grant: Grant, known: dict[Topic, ShareType]) -> ShareRequest:
        """Return the request of a grant of before; its level is that of its ceiling until it is decided on."""
        if grant.topic not in known:  # a list has hundreds of grants on one resource
            resource = self._attributes.resource_of(reader, grant.topic)
            known[grant.topic] = ShareType.CONDITIONAL if resource is None else ShareType(resource.share_type)
        return request_of(grant, share_type=known[grant.topic], level=None)


def request_of(grant: Grant, *, share_type: ShareType, level: Level | None) -> ShareRequest:
    """Return the request that the row of a grant tells of, as if it had been stored.

    What a request of before did not name is what the pool took for granted then: who filed it stated its truth, purpose
    and case stand for the scenario, and records are drawn as a service. Its history is that of the grant's versions.

    Args:
        grant: of which no request is stored.
        share_type: of the resource now.
        level: highest of its fields now; None = unknown, so that its ceiling counts.
    """
    received = received_at(grant) or grant.not_before
    signed = []
    if grant.approved_by is not None and grant.approved_at is not None:
        signed.append(Signature(Office.HEAD, grant.approved_by, grant.approved_at))
    if grant.confirmed_by is not None:
        signed.append(Signature(Office.SECURITY_OFFICER, grant.confirmed_by, grant.approved_at or received))
    suspended = grant.state.value == RequestState.SUSPENDED.value
    return ShareRequest(
        id=grant.id,
        consumer=grant.consumer,
        provider=grant.provider,
        resource=str(grant.topic),
        share_type=share_type,
        level=grant.ceiling if level is None else level,
        sensitive=bool(grant.unmasked or grant.filter_discloses or grant.source_zone),
        duty=grant.duty,
        purpose=grant.purpose,
        legal_basis=grant.legal_basis,
        scenario=scenario_of(grant),
        fields=grant.fields,
        mode=Mode.SERVICE,
        use_until=grant.expires,
        truthful=True,
        requested_by=grant.requested_by,
        renews=grant.renews or None,
        state=RequestState(grant.state.value),
        received_at=received,
        signatures=tuple(signed),
        approved_at=grant.approved_at,
        rectify_until=grant.expires if suspended else None,
    )


def scenario_of(grant: Grant) -> str:
    """Return what stands for the scenario of a request that names none: its purpose and its case."""
    return f"{grant.purpose} {grant.case}".strip()


def _following(request: ShareRequest, grant: Grant) -> ShareRequest:
    """Return a stored request with the parties of its grant, which a merger moves, and in its state.

    A signature counts that the grant names as well: an old row that is put back brings none again that was withdrawn.
    """
    parties = (grant.consumer, grant.provider, str(grant.topic))
    if (request.consumer, request.provider, request.resource) != parties:
        request = replace(request, consumer=grant.consumer, provider=grant.provider, resource=str(grant.topic))
    signed = tuple(one for one in request.signatures if one.account == _signer(grant, one.office))
    if signed != request.signatures:
        request = replace(request, signatures=signed)
    if request.state.value == grant.state.value:
        return request
    suspended = grant.state.value == RequestState.SUSPENDED.value
    return replace(
        request,
        state=RequestState(grant.state.value),
        rectify_until=(request.rectify_until or grant.expires) if suspended else request.rectify_until,
    )


def _signer(grant: Grant, office: Office) -> str | None:
    return grant.confirmed_by if office is Office.SECURITY_OFFICER else grant.approved_by


def received_at(grant: Grant) -> datetime | None:
    """Return when a request was received, as its id says: a UUIDv7, under the grant's seal; None for another one."""
    try:
        return _EPOCH + timedelta(microseconds=time_of_uuid7(grant.id))
    except ValueError:
        return None
