"""Reports to the pool (heartbeat): what each stream does, at the start, when a run ends, every minute, and at the end.

A report holds counts, times and codes from the ledgers, and nothing of a row (`schemas.connector_report`). Nothing
depends on it: a pool that is away or takes no reports, and any failure of a report itself, changes nothing of a run.
The ledgers are read as `status` reads them, without their locks, in a thread of its own.
"""

import hashlib
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from types import TracebackType
from typing import Final, Self

from connectors.config.config import ConnectorConfig
from connectors.config.source_models import PoolSourceConfig
from connectors.runtime import status
from connectors.runtime.status import StreamStatus
from exchange.client import PROGRAM
from schemas.connector_report import ConnectorReport, Direction, ReportAnswer, StreamReport, StreamState
from schemas.errors import InvalidError, PoolError, Reason

__all__ = ["Reporter", "StreamKey"]

StreamKey = tuple[str, str]
"""Direction and name of a stream, as `status` has them."""

_INTERVAL: Final = 60.0  # seconds, where the pool names no other
_CLOSEST: Final = 5.0  # seconds between two reports, however many runs end
_UNKNOWN: Final = 3600.0  # seconds after which a pool that takes no reports is asked again: it may have been upgraded
_LAST: Final = 5.0  # seconds that the end waits for the last report
_NO_REASON: Final = frozenset({"", "done", "stopped", "streaming", "never", "running"})
_NOTICES: Final = {
    "certificate_expires_soon": "its certificate ends within 7 days and was not renewed",
    "program_outdated": "a later version of this program is there; update it",
}


class Reporter:
    """Reports while the block runs, and once at its end.

    Args:
        config: of the connector.
        send: a report to the pool; None = it takes none.
        clock: of this machine, aware.
        notify: is told what the pool answers, once.
    """

    def __init__(
        self,
        config: ConnectorConfig,
        send: Callable[[ConnectorReport], ReportAnswer | None],
        clock: Callable[[], datetime],
        notify: Callable[[str], None],
    ) -> None:
        self._config = config
        self._send = send
        self._notify = notify
        self._started = _micros(clock())
        drawn = isinstance(config.source, PoolSourceConfig)  # a grant's releases are changes
        self._modes = {each.resource: "cdc" if drawn else each.mode for each in config.publish}
        self._fingerprint = hashlib.sha256(config.model_dump_json().encode()).hexdigest()  # secrets are references
        self._ended: dict[StreamKey, str] = {}  # streams whose thread has ended, with the reason; empty = as meant
        self._told: set[str] = set()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="report", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._wake.set()
        self._thread.join(_LAST)

    def run_ended(self) -> None:
        """Report soon: a run has ended."""
        self._wake.set()

    def stream_ended(self, streams: Sequence[StreamKey], reason: str = "") -> None:
        """Register that streams run no more, and why where they were not meant to end."""
        self._ended.update(dict.fromkeys(streams, reason))
        self._wake.set()

    def report(self, *, ended: bool = False) -> ConnectorReport:
        """Return the report of this moment."""
        streams = [("publish", each.resource) for each in self._config.publish]
        streams += [("subscribe", each.grant) for each in self._config.subscribe]
        return ConnectorReport(
            program=PROGRAM,
            started=self._started,
            configuration=self._fingerprint,
            streams=[self._stream(key) for key in streams],
            ended=ended,
        )

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.clear()
            pause = self._report_once(ended=False)
            if pause is None:  # nobody listens: runs that end are no reason to ask again
                self._closing.wait(_UNKNOWN)
                continue
            begun = time.monotonic()
            self._wake.wait(pause)
            self._closing.wait(max(0.0, _CLOSEST - (time.monotonic() - begun)))
        if "silent" not in self._told:
            self._report_once(ended=True)

    def _report_once(self, *, ended: bool) -> float | None:
        """Send a report; return the seconds until the next one, None where the pool takes none."""
        try:
            answer = self._send(self.report(ended=ended))
        except PoolError as error:
            if isinstance(error, InvalidError):
                self._tell(f"the pool refuses this program's reports: {error.reason}")
            return max(_INTERVAL, error.retry_after or 0.0)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong with a report, the streams go on
            self._tell(f"a report to the pool failed: {type(error).__name__}")
            return _INTERVAL
        if answer is None:
            self._told.add("silent")
            return None
        self._told.discard("silent")
        for notice in answer.notices:
            self._tell(f"the pool says: {_NOTICES.get(notice, notice)}")
        return max(_CLOSEST, float(answer.next))

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._notify(text)

    def _stream(self, key: StreamKey) -> StreamReport:
        direction, name = key
        try:
            found = status.read_status(self._config, direction, name)
        except sqlite3.Error:  # it is being made at this moment
            found = StreamStatus(stream=name, direction=direction, in_quarantine={})
        reason = found.state if found.state not in _NO_REASON else ""
        state = StreamState.RUNNING if found.state in {"running", "streaming"} else StreamState.WAITING
        if key in self._ended:
            reason = self._ended[key]
            state = StreamState.STOPPED if reason else StreamState.DONE
        if found.stopped:
            state, reason = StreamState.STOPPED, Reason.SOURCE_CHANGED.value
        return StreamReport(
            name=name,
            direction=Direction(direction),
            state=state,
            mode=self._modes.get(name, "") if direction == "publish" else "",
            reason=reason,
            last_success=_micros_of(found.last_success),
            sequence=found.sequence,
            unacknowledged=found.unacknowledged,
            keys=found.keys,
            read=found.read,
            published=found.published,
            quarantined=found.quarantined,
            unchanged=found.unchanged,
            voided=found.voided,
            quarantine=found.in_quarantine,
            ledger_lost=_micros_of(found.ledger_lost),
        )


def _micros(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000)


def _micros_of(text: str) -> int:
    return _micros(datetime.fromisoformat(text)) if text else 0
