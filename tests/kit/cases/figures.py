"""Random histories of the log, and the figures of supervision made from them in both ways."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exchange.audit.note import NoteKey
from exchange.kpi.collector import Collector
from exchange.kpi.month import month_figures
from exchange.kpi.replay import replay_log
from exchange.kpi.store import KpiStore
from registry.database.unit_of_work import Database
from schemas.access import Action, Actor, ActorKind, Role
from schemas.audit import AuditEntry, Decision, GrantRef
from schemas.errors import Reason
from tests.kit.cases.audit import POOL, START, AuditWorld, Entries, LogWorld

DEPARTMENTS = tuple(f"0198c0de-0000-7000-8000-00000000000{n}" for n in range(1, 5))
DAY = 86_400_000_000
MONTHS = ("2026-10", "2026-11", "2026-12", "2027-01", "2027-02", "2027-03", "2028-01")
REFUSED = (
    Reason.PURPOSE_MISMATCH, Reason.OUTSIDE_DUTY, Reason.ROLE_MISSING, Reason.GRANT_EXPIRED, Reason.ELEMENT_HAS_LEAD,
)  # fmt: skip


def actor(department: str, role: Role = Role.SHARING_OFFICE_HEAD) -> Actor:
    return Actor(kind=ActorKind.HUMAN, id="somebody", department=department, role=role)


@dataclass
class _Grant:
    id: str
    consumer: str
    provider: str
    resource: str
    state: str = "submitted"
    version: int = 1


@dataclass
class History:
    """Entries as the pool writes them, at random: days and months pass, clocks jump back a little."""

    random: random.Random
    make: Entries = field(default_factory=Entries)
    grants: list[_Grant] = field(default_factory=list)

    def entries(self, count: int) -> Iterator[AuditEntry]:
        for _ in range(count):
            self.make.now += self.random.choice((0, 0, 0, DAY // 3, DAY // 2, -DAY // 100))
            yield self._entry()

    def _entry(self) -> AuditEntry:
        act = self.random.choice((
            self._publish, self._submit, self._decide, self._change, self._fetch, self._fetch, self._fetch, self._deny,
            self._fail, self._catalogue, self._read, self._correct, self._violate,
        ))  # fmt: skip
        return act()

    def _resource(self) -> tuple[str, str]:
        at = self.random.randrange(6)
        return f"resource-{at}.v1", DEPARTMENTS[at % 3]

    def _publish(self) -> AuditEntry:
        resource, provider = self._resource()
        data = {"lane": f"{provider}/drop/{resource}", "sequence": 1, "count": self.random.randrange(50)}
        return self.make.make(Action.PUBLISH, actor=actor(provider, Role.CONNECTOR), resource=resource, data=data)

    def _submit(self) -> AuditEntry:
        resource, provider = self._resource()
        grant = _Grant(f"g-{len(self.grants)}", self.random.choice(DEPARTMENTS), provider, resource)
        self.grants.append(grant)
        # An entry of before names no provider: it is then the one that is known to publish.
        data: dict[str, Any] = {"provider": provider} if self.random.random() < 0.7 else {}
        return self._of(grant, Action.GRANT_SUBMIT, grant.consumer, **data, **self._clock("reply.conditional"))

    def _decide(self) -> AuditEntry:
        waiting = [one for one in self.grants if one.state in {"submitted", "approved"}]
        if not waiting:
            return self._submit()
        grant = self.random.choice(waiting)
        if grant.state == "approved":
            grant.state = "active"
            fields = self.random.sample(["a", "b", "c", "d"], self.random.randint(1, 4))
            late = self.random.choice(({}, self._ended("delivery")))
            return self._of(grant, Action.GRANT_PROVISION, grant.provider, fields=fields, **late)
        late = self._ended("reply.conditional")
        draw = self.random.random()
        if draw < 0.2:  # one signature of two
            return self._of(
                grant, Action.GRANT_APPROVE, grant.provider, events=["approve"], waits_for="security_officer"
            )
        if draw < 0.3:
            return self._of(
                grant, "exchange:request:overdue", "", events=["overdue"], **self._clock("reply.conditional")
            )
        if draw < 0.8:
            grant.state = "approved"
            return self._of(grant, Action.GRANT_APPROVE, grant.provider, **late)
        grant.state = "rejected"
        clause = {"clause": "809-21", "ground": "out_of_duty"} if self.random.random() < 0.6 else {}
        return self._of(grant, Action.GRANT_REJECT, grant.provider, reason="no", state="rejected", **clause, **late)

    def _change(self) -> AuditEntry:
        # Some are left alone for two months, so that they last.
        late = self.make.now > START + 60 * DAY
        found = [one for one in self.grants if one.state in {"active", "suspended"} and (late or int(one.id[2:]) % 3)]
        if not found:
            return self._decide()
        grant = self.random.choice(found)
        if grant.state == "suspended":
            grant.state, action = "active", Action.GRANT_RESUME
        else:
            grant.state, action = self.random.choice((
                ("suspended", Action.GRANT_SUSPEND), ("terminated", Action.GRANT_TERMINATE),
                ("expired", Action.GRANT_EXPIRE), ("active", Action.GRANT_REMIND),
            ))  # fmt: skip
        return self._of(grant, action, grant.provider, state=grant.state)

    def _fetch(self) -> AuditEntry:
        # Some are never drawn from, and some no more after twenty days.
        late = self.make.now > START + 20 * DAY
        found = [
            one
            for one in self.grants
            if one.state == "active" and int(one.id[2:]) % 6 and (not late or int(one.id[2:]) % 6 != 3)
        ]
        if not found:
            return self._decide()
        grant = self.random.choice(found)
        return self._of(grant, Action.FETCH, grant.consumer, count=self.random.randrange(20))

    def _deny(self) -> AuditEntry:
        folded = {"folded": self.random.randint(1, 40)} if self.random.random() < 0.3 else {}
        who = self.random.choice((*DEPARTMENTS, None))
        return self.make.make(
            Action.FETCH, actor=None if who is None else actor(who), resource=self._resource()[0],
            decision=Decision.DENY, reason=self.random.choice(REFUSED), data=folded,
        )  # fmt: skip

    def _fail(self) -> AuditEntry:
        failed = self.random.choice((Reason.ELEMENT_CONTESTED, Reason.DISK_FULL))
        return self.make.make(
            Action.CATALOGUE_SUBMIT, actor=actor(self.random.choice(DEPARTMENTS)), resource=self._resource()[0],
            data={"failed": str(failed)},
        )  # fmt: skip

    def _catalogue(self) -> AuditEntry:
        resource, provider = self._resource()
        action, rule, done = self.random.choice((
            (Action.CATALOGUE_CHANGE, "catalogue.update", False), (Action.CATALOGUE_SUBMIT, "catalogue.update", True),
            (Action.CATALOGUE_PUBLISH, "catalogue.review", True), (Action.CATALOGUE_DRAFT, "", False),
        ))  # fmt: skip
        data = self._clock(rule, done=done) if rule else {"state": "draft"}
        return self.make.make(action, actor=actor(provider), resource=resource, data=data)

    def _correct(self) -> AuditEntry:
        resource, provider = self._resource()
        action, who, data = self.random.choice((
            (Action.CORRECTION_OPEN, self.random.choice(DEPARTMENTS), {"source": provider}),
            (Action.CORRECTION_CORRECT, provider, {"late": self.random.random() < 0.5, "due_at": "2026-12-10"}),
            (Action.CORRECTION_CONFIRM, provider, {"late": False}),
            (Action.CORRECTION_ACCEPT, provider, {}),
            (Action.CORRECTION_OVERDUE, "", {"source": provider, "rule": "correction"}),
        ))  # fmt: skip
        return self.make.make(action, actor=actor(who), resource=resource, data=data)

    def _violate(self) -> AuditEntry:
        action = self.random.choice((Action.VIOLATION_DETECT, Action.VIOLATION_CONFIRM, Action.VIOLATION_READ))
        code = self.random.choice(("P4", "C2"))
        return self.make.make(action, actor=actor(""), resource=self.random.choice(DEPARTMENTS), data={"code": code})

    def _read(self) -> AuditEntry:
        return self.make.make(Action.CATALOGUE_READ, actor=actor(self.random.choice(DEPARTMENTS)))

    def _clock(self, rule: str, *, done: bool = False) -> dict[str, Any]:
        clock: dict[str, Any] = {
            "rule": rule,
            "profile": "809",
            "profile_version": 1,
            "due": "2026-12-10T00:00:00+08:00",
        }
        return {"clock": clock | {"late": self.random.random() < 0.3}} if done else {"clock": clock}

    def _ended(self, rule: str) -> dict[str, Any]:
        """Return what an act on a request says of its clock: that it also ran out now, or that the timer said so."""
        said = self._clock(rule, done=True) | self.random.choice(({}, {"events": ["conclude"]}))
        return said | ({"violation": "Art. 39(4)"} if said["clock"]["late"] and self.random.random() < 0.4 else {})

    def _of(self, grant: _Grant, action: Action | str, department: str, **data: Any) -> AuditEntry:
        reference = GrantRef(id=grant.id, version=grant.version, hash="aa" * 32)
        return self.make.make(action, actor=actor(department), resource=grant.resource, grant=reference, data=data)


def write_log(world: AuditWorld, folder: Path, history: History, count: int, *, part: int) -> LogWorld:
    """Write a history and sign it, a checkpoint for each part of it."""
    log = LogWorld(world, folder)
    sequencer, ledger = log.sequencer(), world.ledger()
    for at, entry in enumerate(history.entries(count), start=1):
        with world.db.begin() as work:
            ledger.write(work, [entry])
        if at % part == 0 or at == count:
            sequencer.step()
    return log


def collector_of(log: LogWorld, store: KpiStore, database: Database) -> Collector:
    return Collector(database=database, log=log.world.log, store=store, signed_hash=lambda _index, _size: None)


def figures(store: KpiStore, database: Database, month: str) -> dict[str, Any]:
    with database.read() as reader:
        return month_figures(store, reader, pool=POOL, month=month)


def replayed(log: LogWorld, month: str, size: int | None = None) -> dict[str, Any]:
    key: NoteKey = log.signer.key
    return replay_log(log.folder, key=key, month=month, size=size)[0]
