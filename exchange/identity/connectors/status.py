"""Status of a connector (liveness), from the age and the contents of its last report. Pure.

running     its last report is younger than 150 s: two and a half of its intervals
late        younger than 10 minutes
silent      older: the process, its machine or the network between is down
ended       it said so, with every stream done; `run --once`, or an operator
stopped     it said so, and a stream stopped: a person has to look
never       it has not reported, as no connector of an earlier version does
"""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from exchange.identity.connectors.store import StoredReport
from schemas.connector_report import StreamState

__all__ = ["INTERVAL", "ConnectorStatus", "reason_of", "status_of"]

INTERVAL: Final = timedelta(seconds=60)
"""Between two reports of a connector that runs."""

_LATE: Final = timedelta(seconds=150)
_SILENT: Final = timedelta(minutes=10)


class ConnectorStatus(StrEnum):
    """See the module."""

    RUNNING = "running"
    LATE = "late"
    SILENT = "silent"
    ENDED = "ended"
    STOPPED = "stopped"
    NEVER = "never"


def status_of(stored: StoredReport | None, now: datetime) -> ConnectorStatus:
    """Return the status of a connector whose last report this is."""
    if stored is None:
        return ConnectorStatus.NEVER
    if stored.report is not None and stored.report.ended:
        return ConnectorStatus.STOPPED if _stopped(stored) else ConnectorStatus.ENDED
    age = now - stored.received_at
    if age < _LATE:
        return ConnectorStatus.RUNNING
    return ConnectorStatus.LATE if age < _SILENT else ConnectorStatus.SILENT


def reason_of(stored: StoredReport | None) -> str:
    """Return the code of the first stream that has stopped; empty where none has."""
    return next(iter(_stopped(stored)), "") if stored is not None else ""


def _stopped(stored: StoredReport) -> list[str]:
    streams = stored.report.streams if stored.report is not None else ()
    return [one.reason for one in streams if one.state is StreamState.STOPPED]
