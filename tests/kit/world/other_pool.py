"""Another pool, in memory, with a resource that its department publishes and a grant for a connector of ours."""

import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typing_extensions import override

from connectors.sources.pool.journal import PoolJournal
from connectors.sources.pool.pool_source import GrantTerms, PoolChangeSource
from exchange.client import FetchResult, Hello, Pool
from schemas.errors import Reason, UnavailableError
from schemas.names import Topic
from schemas.record import KeyOccurrence, Mark, Operation, Packed
from tests.kit.twins.pool_twin import CASE, CONSUMER, POOL_ID, PROVIDER, PURPOSE, PoolTwin, TwinClient, offset_of
from tests.kit.world.publisher import Publisher, framed

GRANT = "0198c0de-0000-7000-8000-0000000000a1"
TOPIC = "item.v1"
_VOID = int(Mark(Operation.VOID, KeyOccurrence.AGAIN))
_PUT = int(Mark(Operation.UPSERT, KeyOccurrence.UNKNOWN))
Row = dict[str, Any]


class OtherPool:
    """The other pool: rows of text columns, of which the first is the key."""

    def __init__(self, columns: Iterable[str], rows: Callable[[Row], bool] = lambda _: True) -> None:
        self.columns = tuple(columns)
        self.twin = PoolTwin()
        self.key = Ed25519PrivateKey.generate()
        self.ends: list[int] = []  # number of records after each commit
        self.entry = ""  # what every release says of its entry, in place of the truth
        self.pool_id = ""  # what the pool says of itself, in place of the truth
        fields = [
            {"name": name, "type": "string" if name == self.columns[0] else ["null", "string"]} for name in self.columns
        ]
        schema = {"type": "record", "name": "Item", "key": [self.columns[0]], "fields": fields}
        self.schema_id = self.twin.publish_schema(TOPIC, schema, provider=PROVIDER)
        self.twin.grant(GRANT, TOPIC, self.columns, rows, consumer=CONSUMER)
        self._lane = Publisher(POOL_ID, PROVIDER, "register", TOPIC, self.key)
        self._department = self.twin.client(PROVIDER, "register", self.key)

    def commit(self, *changes: tuple[str, Row]) -> None:
        """Publish a batch of `put` and `delete`."""
        if not changes:
            return
        put = iter(
            framed(self.schema_id, self.twin.schemas[self.schema_id], [r for kind, r in changes if kind == "put"])
        )
        values = [next(put) if kind == "put" else b"" for kind, _ in changes]
        marks = bytes(_PUT if kind == "put" else _VOID for kind, _ in changes)
        voided = [str(row[self.columns[0]]).encode() for kind, row in changes if kind == "delete"]
        batch = self._lane.batch(Packed.of(values), marks=marks, void_keys=voided)
        list(self._department.publish(Topic.parse(TOPIC), [batch]))
        self.ends.append(len(self.twin.topics[TOPIC]))

    def make_unreachable(self) -> None:
        """Make every call fail."""

        def away(_: str) -> None:
            raise UnavailableError(Reason.GATEWAY_UNAVAILABLE, "the gateway does not answer")

        self.twin.fail = away

    def restore(self, backup: Any) -> None:
        """Set the pool back; the department's chain of batches goes on from there."""
        self.twin.restore(backup)
        head = self._department.resume(Topic.parse(TOPIC))
        self._lane.sequence, self._lane.root = head.sequence, head.root

    def client(self) -> Pool:
        """Return what our connector calls."""
        return _Client(self)

    def source(
        self,
        journal: Path,
        *,
        wait: float = 0.05,
        part_rows: int = 10_000,
        batch_rows: int = 5_000,
        stop: threading.Event | None = None,
    ) -> PoolChangeSource:
        """Return the source that draws under the grant."""
        terms = GrantTerms(grant=GRANT, purpose=PURPOSE, case=CASE, wait=wait, batch_rows=batch_rows)
        return PoolChangeSource(self.client(), terms, PoolJournal(journal), stop=stop, part_rows=part_rows)


class _Client(TwinClient):
    """A client whose releases end where a commit ends: where they end is free, and so a test can tell them apart."""

    def __init__(self, other: OtherPool) -> None:
        key = Ed25519PrivateKey.generate().public_key()
        super().__init__(other.twin, CONSUMER, other.twin.client(CONSUMER, "bridge", other.key).connector, key)
        self._other = other

    @override
    def hello(self) -> Hello:
        hello = super().hello()
        return replace(hello, pool_id=self._other.pool_id or hello.pool_id)

    @override
    def fetch(
        self,
        grant_id: str,
        *,
        position: bytes = b"",
        purpose: str,
        case: str,
        max_records: int = 10_000,
        max_bytes: int = 4 * 1024 * 1024,
        wait: float = 0.0,
        places: bool = False,
    ) -> FetchResult:
        start = 0 if position == b"\0" else offset_of(grant_id, position)
        end = next((each for each in self._other.ends if each > start), start + max_records)
        result = super().fetch(
            grant_id,
            position=position,
            purpose=purpose,
            case=case,
            max_records=min(max_records, end - start),
            max_bytes=max_bytes,
            wait=wait,
            places=places,
        )
        return replace(result, entry_id=self._other.entry or result.entry_id)
