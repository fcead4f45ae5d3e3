"""Failed authentications: limited, counted, logged, and folded into one entry a minute for each interface.

    with authentications.attempt(origin, proof):      refuses it unseen while its source or account has to wait
        ... look the token up ...                     a refusal within the block is a failure

The first failure at an interface has an entry at once; those that follow within a minute are one more, with their
number, and the number of sources. No entry, metric or log line holds a token; an entry holds no address either, the
pool's own log does.

A TLS connection with a certificate of another authority ends in the handshake, before the pool sees a call; only the
network's own tools count it.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum

import structlog

from exchange import metrics
from exchange.authorization.enforcement import AuditWriter
from exchange.identity.failure_limiter import FailureLimiter
from registry.database.unit_of_work import Database
from schemas.audit import AUTHENTICATION_FAILED, AuditEntry, Decision
from schemas.canonical import Json
from schemas.errors import Reason, RefusedError, UnavailableError
from schemas.identifiers import random_id, uuid7

__all__ = ["Authentications", "Interface", "Origin"]

_log = structlog.get_logger()
_MINUTE = 60_000_000  # microseconds
_MAX_SOURCES = 1_000  # of one minute that are told apart

_FAILURES = frozenset(
    {
        Reason.NO_IDENTITY,
        Reason.TOKEN_INVALID,
        Reason.TOKEN_EXPIRED,
        Reason.CERTIFICATE_REVOKED,
        Reason.CERTIFICATE_EXPIRED,
    }
)
# Who presents nothing has guessed nothing: it is counted, and delays nobody.
_DELAYS = _FAILURES - {Reason.NO_IDENTITY}


class Interface(StrEnum):
    """Where callers are authenticated."""

    HTTP = "http"
    REGISTRY = "registry"
    ENROLMENT = "enrolment"
    GRPC = "grpc"


@dataclass(frozen=True, slots=True)
class Origin:
    """From where an attempt comes.

    Attributes:
        interface: see Interface.
        source: `exchange.identity.failure_limiter.source_of` of the connection's address.
        account: account name that the caller states; empty where it states none.
    """

    interface: Interface
    source: str
    account: str = ""

    @property
    def keys(self) -> list[str]:
        """The limiter's keys of the attempt."""
        return [f"source:{self.source}", *([f"account:{self.account[:64]}"] if self.account else ())]


@dataclass(slots=True)
class _Minute:
    since: int
    reason: Reason
    count: int = 0
    unseen: int = 0
    sources: set[str] = field(default_factory=set)


class Authentications:
    """Guards every look-up of a token, invitation or certificate.

    Args:
        database: opens the transactions of entries.
        ledger: writes entries.
        pool_id: of the entries.
        clock: microseconds UTC.
        limiter: of this process.
    """

    def __init__(
        self,
        database: Database,
        ledger: AuditWriter,
        *,
        pool_id: str,
        clock: Callable[[], int],
        limiter: FailureLimiter,
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._pool_id = pool_id
        self._clock = clock
        self._limiter = limiter
        self._lock = threading.Lock()
        self._minutes: dict[Interface, _Minute] = {}

    @contextmanager
    def attempt(self, origin: Origin, proof: bytes = b"", *, certified: bool = False) -> Iterator[None]:
        """Make an attempt within the block; a refusal for want of an identity is a failure.

        Args:
            origin: of the attempt.
            proof: digest of what is presented, 32 bytes; empty for a certificate.
            certified: the TLS handshake has proved a certificate of the pool's authority. Nothing is guessed then, and
                the attempt does not wait: a caller that fails all the time at the same address would keep connectors
                from renewing, until their certificates end.

        Raises:
            UnavailableError: TOO_MANY_FAILURES, the attempt has to wait; or the failure could not be recorded.
        """
        if not certified:
            self.check(origin, proof)
        try:
            yield
        except RefusedError as error:
            self.failed(origin, error.reason)
            raise
        if proof:
            self._limiter.succeeded(proof)

    def check(self, origin: Origin, proof: bytes = b"") -> None:
        """Refuse an attempt that has to wait, without a look at what it presents.

        Raises:
            UnavailableError: TOO_MANY_FAILURES, with the seconds to wait.
        """
        wait = self._limiter.wait(origin.keys, proof)
        if wait:
            self._count(origin, Reason.TOO_MANY_FAILURES)
            raise UnavailableError(
                Reason.TOO_MANY_FAILURES,
                "too many authentications have failed from your address, or for this account; wait, then try again",
                retry_after=wait,
            )

    def failed(self, origin: Origin, reason: Reason) -> None:
        """Count a failure, and write its entry if it is the minute's first.

        Raises:
            UnavailableError: the entry could not be written.
        """
        if reason not in _FAILURES:
            return
        if reason in _DELAYS:
            self._limiter.failed(origin.keys)
        if self._count(origin, reason):
            _log.warning("authentication_failed", interface=origin.interface, reason=str(reason), source=origin.source)
            self._write([self._entry(origin.interface, reason, {"count": 1})])

    def flush(self) -> None:
        """Write the entries of the minutes that are over; called a few times a minute."""
        self._flush(self._clock() - _MINUTE)

    def close(self) -> None:
        """Write all that is not written yet."""
        self._flush(None)

    def _count(self, origin: Origin, reason: Reason) -> bool:
        """Count an attempt that failed or was refused unseen; return whether it is the minute's first."""
        metrics.AUTHENTICATIONS_FAILED.labels(origin.interface, reason).inc()
        unseen = reason is Reason.TOO_MANY_FAILURES
        with self._lock:
            minute = self._minutes.get(origin.interface)
            first = minute is None
            if minute is None:
                minute = self._minutes[origin.interface] = _Minute(self._clock(), reason)
            if not first or unseen:
                minute.count += 1
            minute.unseen += unseen
            if len(minute.sources) < _MAX_SOURCES:
                minute.sources.add(origin.source)
        return first

    def _flush(self, before: int | None) -> None:
        with self._lock:
            over = {
                interface: minute
                for interface, minute in self._minutes.items()
                if before is None or minute.since <= before
            }
            for interface in over:
                del self._minutes[interface]
        entries = []
        for interface, minute in over.items():
            if minute.count:
                data: dict[str, Json] = {
                    "folded": minute.count,
                    "since": minute.since,
                    "sources": len(minute.sources),
                    "unseen": minute.unseen,
                }
                entries.append(self._entry(interface, minute.reason, data))
                some = sorted(minute.sources)[:5]
                _log.warning("authentications_failed", interface=interface, count=minute.count, some_sources=some)
        if entries:
            self._write(entries)

    def _entry(self, interface: Interface, reason: Reason, data: dict[str, Json]) -> AuditEntry:
        now = self._clock()
        return AuditEntry(
            pool=self._pool_id,
            id=uuid7(now),
            at=now,
            gateway="",
            salt=random_id(),
            actor=None,
            action=AUTHENTICATION_FAILED,
            resource=str(interface),
            decision=Decision.DENY,
            reason=reason,
            data=data,
        )

    def _write(self, entries: list[AuditEntry]) -> None:
        with self._database.begin() as work:
            self._ledger.write(work, entries, last=True)
