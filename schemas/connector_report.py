"""Connector report (heartbeat): what a department's connector states of itself to the pool, and its form.

    program, configuration, start       which program runs with which configuration
    one item for each stream            state, reason of the last stop, counts of the last run, open quarantine by code

It holds counts, times and codes alone: no message, no value and no key of a record, no path of the department's
machine. It is the department's own statement: the pool shows it as such, and nothing is decided by it.

The totals of a reconciliation are such a statement too: counts by range of keys, as an entry of the log. No hash of
records is in them: an entry is permanent, and the hash of one record would confirm a guess of it after its erasure.
"""

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Self

from schemas.errors import InvalidError, Reason
from schemas.names import Topic

__all__ = [
    "MAX_CODES",
    "MAX_RANGES",
    "MAX_STREAMS",
    "ConnectorReport",
    "Direction",
    "KeyRangeTotals",
    "ReconciliationTotals",
    "ReportAnswer",
    "StreamReport",
    "StreamState",
    "check_report",
    "check_totals",
]

MAX_STREAMS: Final = 200
"""Streams of a report."""
MAX_CODES: Final = 100
"""Reject codes of a stream."""

MAX_RANGES: Final = 16
"""Ranges of keys of a reconciliation."""

_PROGRAM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,99}")
_STREAM = re.compile(r"[a-z0-9][a-z0-9.-]{0,127}")  # topics and ids of grants
_CODE = re.compile(r"[A-Za-z][A-Za-z_]{0,63}")  # no digits, so no number of a person
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LAST_TIME = 253_402_300_799_000_000  # the end of the year 9999, microseconds UTC
_MOST = 2**63 - 1
_MOST_EXACT: Final = 2**53 - 1  # what readers of JSON keep exactly
_RANGE = re.compile(r"[0-9a-f]")
_COUNTS = ("sequence", "unacknowledged", "keys", "read", "published", "quarantined", "unchanged", "voided")


class Direction(StrEnum):
    """Which way the records of a stream go."""

    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"


class StreamState(StrEnum):
    """What a stream does."""

    RUNNING = "running"  # a portion is being read, or records are drawn
    WAITING = "waiting"  # for its next run, or for the pool
    DONE = "done"  # it has ended, as it was to do
    STOPPED = "stopped"  # it has ended; a person has to look


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamReport:
    """A publication or a subscription of a connector.

    Attributes:
        name: topic, or id of the grant.
        direction, state: see there.
        mode: how a publication reads its source, such as snapshot or cdc; empty for a subscription.
        reason: code of the last stop; empty = none.
        last_success: microseconds UTC; 0 = never.
        sequence: of the last acknowledged batch; 0 = none.
        unacknowledged: batches that were sent or are to be sent.
        keys: published keys; 0 = not counted.
        read, published, quarantined, unchanged, voided: rows of the last run.
        quarantine: open entries by reject code.
        ledger_lost: when the ledger was lost, microseconds UTC; 0 = never.
    """

    name: str
    direction: Direction
    state: StreamState
    mode: str = ""
    reason: str = ""
    last_success: int = 0
    sequence: int = 0
    unacknowledged: int = 0
    keys: int = 0
    read: int = 0
    published: int = 0
    quarantined: int = 0
    unchanged: int = 0
    voided: int = 0
    quarantine: Mapping[str, int] = field(default_factory=dict)
    ledger_lost: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectorReport:
    """What a connector states of itself.

    Attributes:
        program: name and version.
        started: when its process began, microseconds UTC.
        configuration: SHA-256 of its configuration, 64 hexadecimal digits; empty = not stated.
        streams: in the order of the configuration.
        ended: the connector ends with this report.
    """

    program: str
    started: int
    configuration: str = ""
    streams: Sequence[StreamReport] = ()
    ended: bool = False

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> Self:
        """Read a report as `document` returns it.

        Raises:
            InvalidError: REQUEST_INVALID, it is none.
        """
        try:
            streams = [
                StreamReport(
                    **{
                        **one,
                        "direction": Direction(one["direction"]),
                        "state": StreamState(one["state"]),
                    }
                )
                for one in document["streams"]
            ]
            found = cls(**{**document, "streams": streams})
            check_report(found)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidError(Reason.REQUEST_INVALID, "got a document of another form; expected a report") from error
        return found

    def document(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "program": self.program,
            "started": self.started,
            "configuration": self.configuration,
            "streams": [_stream_document(one) for one in self.streams],
            "ended": self.ended,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportAnswer:
    """What the pool answers to a report.

    Attributes:
        next: seconds until the next one is expected.
        latest_program: of the pool.
        notices: codes, such as `certificate_expires_soon`.
    """

    next: int
    latest_program: str = ""
    notices: Sequence[str] = ()


def check_report(report: ConnectorReport) -> None:
    """Check that a report is within its bounds and holds codes where codes are meant.

    Raises:
        InvalidError: REQUEST_INVALID; it names the member, never what it holds.
    """
    _check(_PROGRAM.fullmatch(report.program), "program", "name/version, 100 characters at most")
    _check(not report.configuration or _DIGEST.fullmatch(report.configuration), "configuration", "64 hex digits")
    _check_time("started", report.started)
    _check(len(report.streams) <= MAX_STREAMS, "streams", f"{MAX_STREAMS} at most, got {len(report.streams)}")
    names = [(one.direction, one.name) for one in report.streams]
    _check(len({*names}) == len(names), "streams", "each one once")
    for one in report.streams:
        _check_stream(one)


def _check_stream(stream: StreamReport) -> None:
    _check(_STREAM.fullmatch(stream.name), "streams.name", "a topic or the id of a grant")
    for name, code in (("mode", stream.mode), ("reason", stream.reason)):
        _check(not code or _CODE.fullmatch(code), f"streams.{name}", "a code such as gateway_unavailable, or nothing")
    for name in _COUNTS:
        _check_count(f"streams.{name}", getattr(stream, name))
    _check_time("streams.last_success", stream.last_success)
    _check_time("streams.ledger_lost", stream.ledger_lost)
    _check(len(stream.quarantine) <= MAX_CODES, "streams.quarantine", f"{MAX_CODES} codes at most")
    for code, number in stream.quarantine.items():
        _check(_CODE.fullmatch(code), "streams.quarantine", "codes such as NULL_NOT_ALLOWED")
        _check_count("streams.quarantine", number)


def _check_count(name: str, number: Any) -> None:
    _check(isinstance(number, int) and 0 <= number <= _MOST, name, "a count")


def _check_time(name: str, time: Any) -> None:
    _check(isinstance(time, int) and 0 <= time <= _LAST_TIME, name, "microseconds since 1970 UTC")


def _check(holds: object, name: str, expected: str) -> None:
    if not holds:
        raise InvalidError(
            Reason.REQUEST_INVALID, f"{name}: the connector stated something else there; expected {expected}"
        )


def _stream_document(stream: StreamReport) -> dict[str, Any]:
    return {
        "name": stream.name,
        "direction": str(stream.direction),
        "state": str(stream.state),
        "mode": stream.mode,
        "reason": stream.reason,
        "last_success": stream.last_success,
        **{name: getattr(stream, name) for name in _COUNTS},
        "quarantine": dict(stream.quarantine),
        "ledger_lost": stream.ledger_lost,
    }


@dataclass(frozen=True, slots=True)
class KeyRangeTotals:
    """One range: first hexadecimal digit of its keys, records of the department, of the pool, and whether all equal."""

    range: str
    department: int
    pool: int
    equal: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconciliationTotals:
    """What was compared.

    Attributes:
        direction: `publish`, a source with the pool; `subscribe`, a target with its grant.
        stream: topic or id of the grant.
        sequence: of the lane's last batch, of a source; 0 of a target.
        ranges: at most MAX_RANGES, each once.
        set_aside: rows or records that are in quarantine, or no record, and not compared.
        equal: nothing differs.
    """

    direction: Direction
    stream: str
    sequence: int
    ranges: Sequence[KeyRangeTotals]
    set_aside: int
    equal: bool


def check_totals(totals: ReconciliationTotals) -> None:
    """Check that totals of a reconciliation are within their bounds.

    Raises:
        InvalidError: REQUEST_INVALID; it names the member, never what it holds.
    """
    _check(_is_stream(totals.direction, totals.stream), "stream", "the topic of a publication, or the id of a grant")
    names = [one.range for one in totals.ranges]
    _check(len(names) <= MAX_RANGES and len({*names}) == len(names), "ranges", f"{MAX_RANGES} at most, each once")
    for one in totals.ranges:
        _check(_RANGE.fullmatch(one.range), "ranges.range", "one hexadecimal digit")
    counts = [totals.sequence, totals.set_aside, *(n for one in totals.ranges for n in (one.department, one.pool))]
    _check(all(0 <= n <= _MOST_EXACT for n in counts), "ranges", "counts below 2^53")
    _check(not totals.equal or all(one.equal for one in totals.ranges), "equal", "false where a range differs")


def _is_stream(direction: Direction, stream: str) -> bool:
    try:
        if direction is Direction.SUBSCRIBE:
            return str(uuid.UUID(stream)) == stream
        Topic.parse(stream)
    except (ValueError, InvalidError):
        return False
    return True
