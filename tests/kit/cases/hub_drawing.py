"""A hub that draws from a pool in memory, for tests: three departments about a few persons, stores of either kind."""

import random
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from exchange.hub.drawing.golden_codec import GoldenCodec, RecordCodec, golden_schema
from exchange.hub.drawing.replay import Replay
from exchange.hub.drawing.source import DrawnResource
from exchange.hub.drawing.step import Step, StepResult
from exchange.hub.drawing.subjects import IdentifierFields
from exchange.hub.fold.claim import Claim
from exchange.hub.fold.golden import Provenance, unpack_provenance
from exchange.hub.fold.identity import Handle, handle_of, identifier
from exchange.hub.fold.rules import Rules, parse
from exchange.hub.services.rule_changes import RulesState, RulesVersion
from exchange.hub.store.keys import HubKeys, MemoryHubKeys
from exchange.hub.store.model import GoldenFlag
from exchange.hub.store.rules_store import MemoryRules, RulesStore
from exchange.hub.store.sealing import Keyring, golden_context, open_claim, readable, unseal
from exchange.hub.store.store import HubStore, MemoryHub
from registry.database.unit_of_work import Database, MemoryDatabase, take_row_changes
from schemas.names import Topic
from schemas.record import Operation
from tests.kit.cases.hub_claims import FIELDS, document
from tests.kit.cases.hub_rows import MONTH
from tests.kit.twins.hub_pool import MemoryPool

TOPICS: Final = ("population.v1", "marriages.v1", "insured.v2", "travel-permits.v1")
_SUBJECT: Final = IdentifierFields(number="id_number", type_field="id_type")
_OTHER: Final = IdentifierFields(number="other_number", type_field="other_type")
Shown: TypeAlias = tuple[GoldenFlag, dict[str, Any] | None, Provenance | Handle | None]
_AT: Final = datetime(2026, 5, 4, tzinfo=UTC)
NOW: Final = 10_000


def number(person: int) -> str:
    """Return the citizen number of a person; its check character is not looked at."""
    return f"1101051949123{person:04}X"


@dataclass
class Hub:
    """A hub with its pool."""

    pool: MemoryPool
    store: HubStore
    rules: RulesStore
    db: Database
    keys: HubKeys
    library: str = "population"
    fields: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def new(
        cls,
        pool: MemoryPool,
        *,
        store: HubStore | None = None,
        rules: RulesStore | None = None,
        db: Database | None = None,
        library: str = "population",
        **fields: Any,
    ) -> "Hub":
        """Return a hub with active rules that names each resource of the pool."""
        keys = MemoryHubKeys()
        keys.draw(MONTH)
        hub = cls(pool, store or MemoryHub(), rules or MemoryRules(), db or MemoryDatabase(), keys, library, fields)
        hub.activate(parse(document(**fields) | {"library": library}))
        return hub

    def activate(self, made: Rules) -> None:
        with self.db.begin() as work:
            active = self.rules.active(work, made.library)
            if active is not None:
                self.rules.change(work, replace(active, state=RulesState.RETIRED), RulesState.ACTIVE)
            version = RulesVersion(
                rules=made, state=RulesState.ACTIVE, based_on=made.version - 1, departments=(), proposed_by="e",
                proposed_at=_AT,
            )  # fmt: skip
            self.rules.add(work, version)
            self.store.number_resources(work, made.resources)
            take_row_changes(work)

    def codec(self) -> GoldenCodec:
        made = parse(document(**self.fields) | {"library": self.library})
        return GoldenCodec(7, golden_schema(made, dict.fromkeys(FIELDS, "string")))

    def step(self, topic: str, **changes: Any) -> Step:
        resource = DrawnResource(
            topic=Topic.parse(topic), grant=topic, library=self.library, subject=_SUBJECT, links=(_OTHER,)
        )
        parts: dict[str, Any] = {
            "resource": resource, "source": self.pool, "database": self.db, "store": self.store, "rules": self.rules,
            "keys": self.keys, "golden": self.codec(), "now": lambda: NOW, "month": lambda: MONTH,
        }  # fmt: skip
        return Step(**(parts | changes))

    def replay(self) -> Replay:
        return Replay(
            library=self.library,
            database=self.db,
            store=self.store,
            rules=self.rules,
            keys=self.keys,
            records=RecordCodec(self.pool.schema),
            golden=self.codec(),
            now=lambda: NOW,
        )

    def draw_all(self, chance: random.Random | None = None) -> list[StepResult]:
        """Draw every resource to its end, in turn or in a random order."""
        waiting = {topic: self.step(topic) for topic in self.pool._topics}
        results = []
        while waiting:
            topic = chance.choice([*waiting]) if chance else next(iter(waiting))
            results.append(waiting[topic].run())
            if results[-1].caught_up:
                del waiting[topic]
        return results

    def handle(self, person: int, type_: str = "ric18") -> Handle:
        written = number(person) if type_ == "ric18" else f"P{person:014}"
        return handle_of(self.keys.handle_key(), identifier(type_, written))

    def golden(self, *handles: Handle) -> dict[Handle, Shown]:
        """Return flags, values and provenance of golden records; of one that moved the handle under which it stands."""
        found: dict[Handle, Shown] = {}
        with self.db.read() as reader:
            ring = Keyring.unwrapped(self.keys, self.store.keys(reader, handles).values())
            rows = self.store.golden(reader, handles)
        for handle, row in rows.items():
            key = ring.of(handle)
            plain = b"" if key is None else unseal(key, golden_context(row), row.sealed)
            if row.flags & GoldenFlag.MOVED:
                found[handle] = (row.flags, None, Handle(row.prov))
            elif plain:
                found[handle] = (row.flags, self.codec().decode([plain])[0], unpack_provenance(row.prov))
            else:
                found[handle] = (row.flags, None, None)
        return found

    def claims(self, *handles: Handle) -> list[Claim]:
        """Return the stored claims of subjects, opened."""
        codec = RecordCodec(self.pool.schema)
        found = []
        with self.db.read() as reader:
            ring = Keyring.unwrapped(self.keys, self.store.keys(reader, handles).values())
            rows = self.store.claims(reader, handles)
        for row in rows:
            key = ring.of(row.handle)
            links, value = ((), b"") if key is None else open_claim(row, key)
            found.append(readable(row, links, codec.decode([value])[0]))
        return found

    def state(self, handles: list[Handle]) -> dict[str, Any]:
        """Return all that a reader may see of subjects, without numbers of batches and nonces."""
        with self.db.read() as reader:
            conflicts = self.store.open_conflicts(reader, handles)
            positions = {topic: self.store.position(reader, topic, 0) for topic in self.pool._topics}
        return {
            "golden": self.golden(*handles),
            "claims": [replace(one, applied=0) for one in self.claims(*handles)],
            "conflicts": {(one.handle, one.field, one.winner, one.loser) for one in conflicts},
            "positions": positions,
        }


_TEXTS: Final = (None, "a", "b", " ａ", "13800138000")


def publish_some(pool: MemoryPool, chance: random.Random, size: int, persons: int, *, linked: bool = False) -> None:
    """Publish records about a few persons, with voids, corrections, moved records and links."""
    for topic in TOPICS:
        if topic not in pool._topics:
            pool.add(topic)
    for _ in range(size):
        topic = chance.choice(TOPICS if linked else TOPICS[:3])
        person = chance.randrange(persons)
        key = f"k{person}" if chance.random() < 0.9 else f"k{chance.randrange(persons)}"
        if chance.random() < 0.15:
            pool.publish(topic, key, None, valid_from=chance.choice((None, None, 50, 1_010)))
            continue
        values: dict[str, Any] = {name: chance.choice(_TEXTS) for name in FIELDS}
        values |= {"id_type": "ric18", "id_number": number(person)}
        if topic == "travel-permits.v1":
            other = chance.randrange(persons)
            values |= {"other_type": "foreign_pr", "other_number": f"P{other:014}"}
        start = chance.choice((None, None, 40, 900, 20_000))
        end = chance.choice((None, None, None, 1_005, 30_000)) if start is not None else None
        operation = chance.choice((Operation.UPSERT, Operation.UPSERT, Operation.CORRECT))
        pool.publish(topic, key, values, operation, valid_from=start, valid_to=end)
