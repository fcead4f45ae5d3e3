"""The metric of connectors that are not heard of: counted anew each time, so that one that is back counts no more."""

from datetime import UTC, datetime, timedelta
from typing import Any

from prometheus_client import REGISTRY

from exchange.control.connectors import ConnectorService
from exchange.identity.connectors.store import MemoryConnectorStore
from exchange.identity.store import Certificate, MemoryIdentityStore
from exchange.monitoring.alarms import Sample, open_alarms
from registry.database.unit_of_work import MemoryDatabase
from schemas.connector_report import ConnectorReport

AT = datetime(2026, 5, 4, tzinfo=UTC)
REPORT = ConnectorReport(program="exchange-pool/0.1.0", started=1, streams=[])


def alarms() -> dict[str, float]:
    """Return the departments for which the alarm is open, with the numbers of connectors."""
    found = [
        Sample(one.name, one.labels, one.value)
        for metric in REGISTRY.collect()
        for one in metric.samples
        if one.name == "pool_connectors_unheard"
    ]
    opened = [one for one in open_alarms(found) if one.alarm.name == "PoolConnectorSilent"]
    counts = {sample.labels["department"]: sample.value for sample in found}
    return {one.labels["department"]: counts[one.labels["department"]] for one in opened}


def test_a_connector_that_falls_silent_raises_an_alarm_until_it_reports_again() -> None:
    database, identities, now = MemoryDatabase(), MemoryIdentityStore(), [AT]
    store = MemoryConnectorStore(identities)
    others: dict[str, Any] = dict.fromkeys(("enforcer", "attributes", "receipts", "entries"))
    service = ConnectorService(
        database=database, identities=identities, store=store, program="x", now=lambda: now[0], **others
    )
    with database.begin() as work:
        for name in ("a", "b"):
            certificate = Certificate(
                serial=name, department="d-1", connector=name, not_before=AT, not_after=AT + timedelta(days=1)
            )
            identities.add_certificate(work, certificate)
            store.put_report(work, ("d-1", name), AT, REPORT)
    service.measure_unheard()
    assert alarms() == {}
    now[0] += timedelta(seconds=181)
    service.measure_unheard()
    assert alarms() == {"d-1": 2}
    with database.begin() as work:
        store.put_report(work, ("d-1", "a"), now[0], REPORT)
    service.measure_unheard()
    assert alarms() == {"d-1": 1}
    with database.begin() as work:
        store.put_report(work, ("d-1", "b"), now[0], REPORT)
    service.measure_unheard()
    assert alarms() == {}
