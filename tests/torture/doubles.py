"""The two wrong gateways, which the checks must find out: `pool serve` with one promise taken away.

    python -m tests.torture.doubles plain-append serve …     appends without transactions
    python -m tests.torture.doubles early-release serve …    releases first, and writes the entry later

They stand here and not behind a switch of the product.
"""

import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from confluent_kafka import Consumer, Producer

from exchange import cli
from exchange.audit.ledger import AuditLedger
from exchange.broker.kafka import producers
from exchange.broker.kafka.client import KafkaClient
from registry.database.unit_of_work import PostgresDatabase, UnitOfWork
from schemas.access import Action
from schemas.audit import AuditEntry

CONTROLS = ("plain-append", "early-release")
_LATE = 1.5  # seconds between a release and its entry


def plain_append() -> None:
    """Idempotent produce and a receipt of its own, as many a gateway does it: two commits instead of one."""
    links: list[KafkaClient] = []
    real = KafkaClient.__init__

    def remember(self: KafkaClient, *arguments: Any) -> None:
        real(self, *arguments)
        links.append(self)

    class Plain:
        def __init__(self, settings: dict[str, Any]) -> None:
            self._group = settings["transactional.id"]
            kept = {name: value for name, value in settings.items() if not name.startswith("transaction")}
            self._producer = Producer({**kept, "enable.idempotence": True})

        def init_transactions(self, _: float) -> None:
            return

        begin_transaction = commit_transaction = abort_transaction = lambda *_: None

        def send_offsets_to_transaction(self, offsets: list[Any], _: object, __: float) -> None:
            consumer = Consumer(links[0].settings.consumer(**{"group.id": self._group}))
            consumer.commit(offsets=offsets, asynchronous=False)
            consumer.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._producer, name)

        def __len__(self) -> int:
            return len(self._producer)

    KafkaClient.__init__ = remember  # type: ignore[assignment,method-assign]
    producers.Producer = Plain  # type: ignore[misc,assignment,attr-defined]


def early_release() -> None:
    """Tell the consumer at once and the log afterwards."""
    real_open, real_write = AuditLedger.open, AuditLedger.write
    kept: list[PostgresDatabase] = []

    def opened(self: AuditLedger, db: Any) -> None:
        kept.append(db)
        real_open(self, db)

    def write(self: AuditLedger, work: UnitOfWork, entries: Sequence[AuditEntry], *, last: bool = False) -> list[bytes]:
        if not any(entry.action == Action.FETCH for entry in entries):
            return real_write(self, work, entries, last=last)

        def later() -> None:
            time.sleep(_LATE)
            with kept[0].begin() as own:
                real_write(self, own, entries)

        threading.Thread(target=later, daemon=True).start()
        return [bytes(32) for _ in entries]

    AuditLedger.open = opened  # type: ignore[method-assign]
    AuditLedger.write = write  # type: ignore[method-assign]


if __name__ == "__main__":
    {"plain-append": plain_append, "early-release": early_release}[sys.argv.pop(1)]()
    cli.main()
