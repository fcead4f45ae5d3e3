"""Alarms: one table of what an operator has to be told, and what to do about each. Pure data.

    Prometheus     `exchange.monitoring.prometheus_rules`: deploy/prometheus/rules.yml, `pool alarms --prometheus`
    runbook        the table in docs/runbook.md is made from it
    pool status    lists those that hold at this moment, of what one look can tell

A look at a process sees a value, and no change of a value: an alarm about a rate (`Rise`) needs Prometheus. A duration
(`lasts`) is Prometheus's too; `pool status` says what holds now.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

__all__ = ["ALARMS", "Alarm", "Condition", "Level", "Missing", "OpenAlarm", "Rise", "Sample", "Severity", "open_alarms"]

_DAY: Final = 86_400
_MINUTE: Final = 60


class Severity(StrEnum):
    """How soon somebody has to look."""

    CRITICAL = "critical"  # now: nothing is exchanged, or somebody has changed what is stored
    WARNING = "warning"  # within the working day


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample of a metric, as a process exports it."""

    metric: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """A metric is above or below a bound; exactly one of the two is given.

    Attributes:
        metric: its name.
        above, below: the bound.
        label, values: a label, and those of its values that count; empty = every series.
    """

    metric: str
    above: float | None = None
    below: float | None = None
    label: str = ""
    values: tuple[str, ...] = ()

    def holds(self, sample: Sample) -> bool:
        """Return whether it holds for a sample."""
        if sample.metric != self.metric or (self.label and sample.labels.get(self.label) not in self.values):
            return False
        return sample.value > self.above if self.above is not None else sample.value < (self.below or 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rise:
    """A counter, all its series together, rises by more than a bound within a time.

    Attributes:
        metric: its name.
        within: seconds.
        above: the bound.
        label, values: as in `Level`.
    """

    metric: str
    within: int
    above: float = 0
    label: str = ""
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """No process exports the metric."""

    metric: str


Condition: TypeAlias = Level | Rise | Missing


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """One alarm.

    Attributes:
        name: as Prometheus shows it.
        meaning: what is the matter, in one sentence without a full stop.
        condition: when it is raised.
        lasts: seconds for which the condition must hold before.
        severity: how soon somebody has to look.
        section: the runbook's, as the anchor of its heading: what to do.
    """

    name: str
    meaning: str
    condition: Condition
    lasts: int
    severity: Severity
    section: str


@dataclass(frozen=True, slots=True)
class OpenAlarm:
    """An alarm that holds now, and the labels of the series for which it does."""

    alarm: Alarm
    labels: Mapping[str, str]


def open_alarms(samples: Collection[Sample], alarms: Collection[Alarm] = ()) -> Iterator[OpenAlarm]:
    """Return the alarms that hold by one look; never one about a rate.

    Args:
        samples: of all processes.
        alarms: the table; the project's own if empty.
    """
    known = {sample.metric for sample in samples}
    for alarm in alarms or ALARMS:
        match alarm.condition:
            case Level() as level:
                yield from (OpenAlarm(alarm, sample.labels) for sample in samples if level.holds(sample))
            case Missing(metric=metric):
                if metric not in known:
                    yield OpenAlarm(alarm, {})
            case Rise():
                pass


def _critical(name: str, meaning: str, condition: Condition, section: str, lasts: int = 0) -> Alarm:
    return Alarm(
        name=name, meaning=meaning, condition=condition, lasts=lasts, severity=Severity.CRITICAL, section=section
    )


def _warning(name: str, meaning: str, condition: Condition, section: str, lasts: int = 0) -> Alarm:
    return Alarm(
        name=name, meaning=meaning, condition=condition, lasts=lasts, severity=Severity.WARNING, section=section
    )


ALARMS: Final = (
    _critical(
        "PoolNotRunning", "No process of the pool is seen", Missing(metric="pool_serving"), "start-and-stop", _MINUTE
    ),
    _critical(
        "PoolNotReady",
        "A check of /readyz fails; its name is in the label",
        Level(metric="pool_ready", below=1),
        "a-check-of-readyz-fails",
        _MINUTE,
    ),
    _critical(
        "PoolServingStopped",
        "Nothing is released and nothing accepted, since the log is not signed",
        Level(metric="pool_serving", below=1),
        "nothing-is-released-since-the-log-is-not-signed",
        _MINUTE,
    ),
    _warning(
        "PoolLogUnsigned",
        "An entry may have waited longer for its signature than receipts promise",
        Level(metric="pool_unsequenced_age_seconds", above=10),
        "the-sequencers-alarms",
        _MINUTE,
    ),
    _critical(
        "PoolLogCorrupt",
        "The sequencer found stored data that contradicts what was signed",
        Level(
            metric="pool_sequencer_failures_total",
            above=0,
            label="reason",
            values=("log_corrupt", "leaf_mismatch"),
        ),
        "the-log-or-a-grant-fails-verification",
    ),
    _critical(
        "PoolClockJumped",
        "The sequencer refuses to sign with this clock",
        Rise(metric="pool_sequencer_failures_total", within=5 * _MINUTE, label="reason", values=("clock_jumped",)),
        "the-clock-jumped",
    ),
    _critical(
        "PoolRecordsCorrupt",
        "Stored records were changed or are missing",
        Level(metric="pool_records_corrupt_total", above=0),
        "stored-records-are-corrupt",
    ),
    _critical(
        "PoolRowsRefused",
        "The database holds rows that the pool did not write",
        Level(metric="pool_rows_refused_total", above=0),
        "a-row-is-refused",
    ),
    _critical(
        "PoolRowsPutBack",
        "Rows of the database are older than they were, or gone",
        Level(metric="pool_rows_put_back_total", above=0),
        "a-row-is-refused",
    ),
    _critical(
        "PoolEntriesRefused",
        "The database holds audit entries that no process of the pool wrote",
        Level(metric="pool_entries_refused_total", above=0),
        "an-entry-is-refused",
    ),
    _critical(
        "PoolLaneStopped",
        "A lane cannot be read; its connector is refused",
        Level(metric="pool_lanes_unreadable", above=0),
        "a-lane-cannot-be-read",
        _MINUTE,
    ),
    _warning(
        "PoolConnectorSilent",
        "A connector of the label's department has not reported for three intervals, and did not say that it ended",
        Level(metric="pool_connectors_unheard", above=0),
        "a-connector-is-silent",
        2 * _MINUTE,
    ),
    _warning(
        "PoolReceiptsRecovered",
        "A gateway ended between a commit and its entry; the sweeper wrote it",
        Rise(metric="pool_recovered_receipts_total", within=60 * _MINUTE),
        "the-database-is-unavailable",
    ),
    _warning(
        "PoolDatabaseRestarted",
        "The embedded PostgreSQL had ended",
        Rise(metric="pool_embedded_postgres_restarts_total", within=10 * _MINUTE),
        "the-embedded-postgresql-has-ended",
    ),
    _warning(
        "PoolProcessRestarted",
        "A process beside the first one had ended",
        Rise(metric="pool_child_restarts_total", within=10 * _MINUTE),
        "a-process-beside-has-ended",
    ),
    _warning(
        "PoolDiskFills",
        "Less than a tenth of the disk of the pool's folder is free",
        Level(metric="pool_disk_free_ratio", below=0.1),
        "a-disk-is-full",
        5 * _MINUTE,
    ),
    _critical(
        "PoolDiskFull",
        "Less than 2 % of the disk of the pool's folder is free",
        Level(metric="pool_disk_free_ratio", below=0.02),
        "a-disk-is-full",
        _MINUTE,
    ),
    _warning(
        "PoolLogLinesLost",
        "Standard error did not take log lines",
        Rise(metric="pool_log_lines_lost_total", within=10 * _MINUTE),
        "a-disk-is-full",
    ),
    _warning(
        "PoolCertificateEnds",
        "A certificate of the pool ends within 30 days",
        Level(metric="pool_certificate_seconds_left", below=30 * _DAY),
        "certificates",
        60 * _MINUTE,
    ),
    _warning(
        "PoolBackupOld",
        "The last backup is older than 36 hours, or there is none",
        Level(metric="pool_backup_age_seconds", above=1.5 * _DAY),
        "back-up-and-restore-the-rest",
        60 * _MINUTE,
    ),
    _warning(
        "PoolAuthenticationsFail",
        "More than 50 authentications a minute fail, for five minutes",
        Rise(metric="pool_authentications_failed_total", within=5 * _MINUTE, above=250),
        "authentications-fail",
        _MINUTE,
    ),
    _warning(
        "PoolCallersRefused",
        "A listener refuses callers for a bound",
        Rise(metric="pool_admission_refused_total", within=5 * _MINUTE, above=100),
        "a-listener-refuses-callers",
        5 * _MINUTE,
    ),
    _warning(
        "PoolPublishingSlow",
        "Connectors send faster than batches are appended",
        Rise(metric="pool_publish_held_back_total", within=5 * _MINUTE, above=100),
        "publishing-is-slow-for-everybody",
        10 * _MINUTE,
    ),
    _warning(
        "PoolSchemasTopicBehind",
        "The registry's changes do not reach the topic of schemas",
        Rise(metric="pool_schemas_topic_failures_total", within=5 * _MINUTE, above=10),
        "kafka",
        5 * _MINUTE,
    ),
    _warning(
        "PoolEnginesDiffer",
        "The two Avro engines gave different bytes for one view",
        Level(metric="pool_engine_differences_total", above=0),
        "the-avro-engines",
    ),
    _warning(
        "PoolEnginesReplaced",
        "Engine processes are killed or die",
        Rise(metric="pool_engines_replaced_total", within=10 * _MINUTE, above=3),
        "the-avro-engines",
    ),
)
"""Every alarm, by subject."""
