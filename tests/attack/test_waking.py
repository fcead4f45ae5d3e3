"""Many consumers wake at once and are fetched together: each gets what a fetch alone gives it, or nothing.

The pool runs as a process. A second gateway on its database runs in the test, so that a group's transaction can be held
open at any step.
"""

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from exchange.authorization.request_context import RequestContext
from exchange.config import Config
from exchange.records.group_fetch import FetchCall, GroupFetch, Outcome
from exchange.records.reading.position_token import BEGINNING
from exchange.records.release import Release
from exchange.server.composition import App
from registry.database.unit_of_work import UnitOfWork
from schemas.access import Action, Actor
from schemas.audit import AuditEntry
from schemas.errors import PoolError, Reason, RefusedError, UnavailableError
from tests.contract.pool_suite import CASE, PURPOSE, Consumer, Resource, rows
from tests.contract.test_pool import Served
from tests.kit.patience import PATIENCE, wait_for
from tests.kit.share import random_of
from tests.kit.world.world import World, disclosing

pytestmark = [pytest.mark.e2e, pytest.mark.postgres]
FETCH = str(Action.FETCH)
CALL = RequestContext(trace="0" * 32, purpose=PURPOSE, case=CASE, client="test")


@dataclass
class Gateway:
    """The second gateway."""

    app: App
    actor: Actor
    world: World = field(init=False)
    rig: Served = field(init=False)

    @property
    def group(self) -> GroupFetch:
        return self.app.pool.fetching_together

    def call(self, grant_id: str, position: bytes = BEGINNING, **more: Any) -> FetchCall:
        values = {"actor": self.actor, "call": CALL, "max_records": 0, "max_bytes": 0, **more}
        return FetchCall(grant_id=grant_id, position=position, **values)

    def together(self, calls: Sequence[FetchCall]) -> list[Outcome]:
        """Return the outcome of each."""
        outcomes: dict[int, Outcome] = {}
        for part in self.group.fetch(calls):
            assert not outcomes.keys() & part.keys()
            outcomes |= part
        return [outcomes.get(index) for index in range(len(calls))]

    def alone(self, call: FetchCall) -> Release | PoolError:
        fetching = self.app.pool.fetching
        try:
            return fetching.fetch(call.actor, call.call, call.grant_id, call.position, call.max_records, call.max_bytes)
        except PoolError as error:
            return error

    def rows(self, statement: str, **values: Any) -> list[Any]:
        with self.app.engines[0].connect() as connection:
            return [tuple(row) for row in connection.execute(sa.text(statement), values)]

    def state(self, grants: Sequence[str]) -> dict[str, list[Any]]:
        """Return entries of fetches, quotas and positions of some grants."""
        tables = {
            "audit_entry": "SELECT leaf FROM audit_entry WHERE grant_id = ANY (:ids) AND action = :fetch ORDER BY seq",
            "access_quota": "SELECT * FROM access_quota WHERE grant_id = ANY (:ids) ORDER BY grant_id",
            "access_position": "SELECT * FROM access_position WHERE grant_id = ANY (:ids) ORDER BY grant_id",
        }
        values = {"ids": list(grants), "fetch": FETCH}
        return {name: self.rows(statement, **values) for name, statement in tables.items()}


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with World.start() as world:
        rig = Served(world)
        yield rig
        rig.close()


@pytest.fixture(scope="module")
def gateway(served: Served) -> Iterator[Gateway]:
    gateway = opened(served._world.folder, served._labour.id)
    gateway.world, gateway.rig = served._world, served
    yield gateway
    gateway.app.close()


def opened(folder: Path, department: str) -> Gateway:
    """Open a gateway in this process, for the connector of a department."""
    app = App.open(Config.load(folder / "pool"), own_database=False)
    certificate = x509.load_pem_x509_certificate((folder / "identities" / department / "sink" / "tls.crt").read_bytes())
    return Gateway(app, app.pool.identify(certificate.public_bytes(Encoding.DER)))


@pytest.fixture
def resource(served: Served) -> Resource:
    return Resource(served)


def grant(resource: Resource, rig: Served, **terms: Any) -> str:
    fields = terms.pop("fields", ("id", "district", "age"))
    grant_id = rig.request(resource.topic, fields, **terms)
    rig.approve(grant_id)
    return grant_id


def act(rig: Served, grant_id: str, what: str) -> None:
    rig._police.account("sharing_office_head").post(f"/grants/{grant_id}/{what}", {"reason": "试停"})


def summary(outcome: Outcome) -> Any:
    """Return what a consumer gets, without what is new in each answer: position, entry, window."""
    if isinstance(outcome, PoolError):
        return type(outcome), outcome.reason
    assert outcome is not None
    empty = {"next_position": b"", "entry_id": "", "leaf_hash": b"", "deadline": 0.0}
    return replace(outcome, **empty, recorded_at=tuple(outcome.recorded_at))  # type: ignore[arg-type]


def entries(gateway: Gateway, grants: Sequence[str]) -> list[dict[str, Any]]:
    return [json.loads(bytes(leaf)) for (leaf,) in gateway.state(grants)["audit_entry"]]


def test_each_of_a_wave_gets_what_a_fetch_alone_gives_it(gateway: Gateway, resource: Resource) -> None:
    rig = gateway.rig
    district = {"row_filter": {"op": "eq", "field": "district", "value": "d1"}, **disclosing("district")}
    nowhere = {"row_filter": {"op": "eq", "field": "district", "value": "d9"}, **disclosing("district")}
    kinds: dict[str, dict[str, Any]] = {
        "plain": {},
        "narrow": {"fields": ("id",)},
        "filtered": district,
        "empty": nowhere,
        "later": {"history": "since_approval"},
        "without withdrawals": {"withdrawals": False},
        "within its quota": {"quota_per_day": 40},
        "quota passed": {"quota_per_day": 9},
        "suspended": {},
        "terminated": {},
        "forged": {},
        "of another purpose": {},
        "of no position": {},
        "another's": {},
        "twice": {},
        "bounded": {},
    }
    ids = {kind: grant(resource, rig, **terms) for kind, terms in kinds.items()}
    resource.publish(resource.batch(rows(*range(4))))
    first = {kind: gateway.alone(gateway.call(grant_id)) for kind, grant_id in ids.items()}
    resource.publish(resource.batch(rows(*range(4, 10))), resource.voids("p1", "p4"))
    act(rig, ids["suspended"], "suspend")
    act(rig, ids["terminated"], "suspend")
    act(rig, ids["terminated"], "terminate")
    with gateway.app.engines[0].begin() as connection:
        forge = sa.text("UPDATE access_grant SET text = replace(text, 'STANDING', 'SITTING') WHERE id = :id")
        connection.execute(forge, {"id": ids["forged"]})
    calls = {
        kind: gateway.call(ids[kind], one.next_position) for kind, one in first.items() if isinstance(one, Release)
    }
    assert calls.keys() == ids.keys()
    calls["of another purpose"] = replace(calls["of another purpose"], call=replace(CALL, purpose="statistics"))
    calls["another's"] = replace(calls["another's"], actor=replace(gateway.actor, department="other"))
    calls["bounded"] = replace(calls["bounded"], max_records=2)
    calls["unknown"] = gateway.call("01890000-0000-7000-8000-000000000099")
    calls["of no position"] = replace(calls["of no position"], position=b"\x02" * 60)
    expected = {kind: summary(gateway.alone(call)) for kind, call in calls.items()}
    order = list(calls)
    random_of("waves").shuffle(order)
    order.append("twice")

    outcomes = gateway.together([calls[kind] for kind in order])

    gets = {
        "plain",
        "narrow",
        "filtered",
        "empty",
        "later",
        "without withdrawals",
        "within its quota",
        "twice",
        "bounded",
    }
    together = {kind for kind, outcome in zip(order, outcomes, strict=True) if outcome is not None}
    assert together == gets
    for kind, outcome in zip(order, outcomes, strict=True):
        got = summary(gateway.alone(calls[kind]) if outcome is None else outcome)
        if kind == "bounded":  # which records come first is the broker's choice, and differs from fetch to fetch
            assert 0 < len(got) <= 2
            assert set(got.values) <= set(expected["plain"].values) | {b""}
            continue
        assert (kind, got) == (kind, expected[kind])
    assert overdrawn(gateway, list(ids.values())) == {}


def overdrawn(gateway: Gateway, grants: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return the grants whose count of the day is not that of their entries: counted, entered."""
    entered: Counter[str] = Counter()
    for entry in entries(gateway, grants):
        if entry["decision"] == "allow":
            entered[entry["grant"]["id"]] += entry["data"]["count"] + entry["data"].get("withdrawn_count", 0)
    counted = {row[0]: row[2] for row in gateway.state(grants)["access_quota"]}
    pairs = {grant_id: (counted.get(grant_id, 0), entered[grant_id]) for grant_id in grants}
    return {grant_id: pair for grant_id, pair in pairs.items() if pair[0] != pair[1]}


@contextmanager
def held(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[threading.Event, threading.Event]]:
    """Hold a group before its entries are written; yield the events "it is there" and "it may go on"."""
    there, go_on = threading.Event(), threading.Event()
    write = gateway.group._ledger.write

    def wait(work: UnitOfWork, written: Sequence[AuditEntry], *, last: bool = False) -> list[bytes]:
        there.set()
        assert go_on.wait(PATIENCE)
        return write(work, written, last=last)

    with monkeypatch.context() as patched:
        patched.setattr(gateway.group._ledger, "write", wait)
        yield there, go_on


def waits_for_a_lock(gateway: Gateway) -> bool:
    statement = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ILIKE '%FOR UPDATE%'"
    return bool(gateway.rows(statement)[0][0])


def test_a_revocation_waits_for_the_group_that_is_open_and_nothing_leaves_after_it(
    gateway: Gateway, resource: Resource, monkeypatch: pytest.MonkeyPatch
) -> None:
    grants = [grant(resource, gateway.rig) for _ in range(4)]
    resource.publish(resource.batch(rows(1, 2)))
    calls = [gateway.call(grant_id) for grant_id in grants]
    with ThreadPoolExecutor(2) as threads, held(gateway, monkeypatch) as (there, go_on):
        wave = threads.submit(gateway.together, calls)
        assert there.wait(PATIENCE)
        revocation = threads.submit(lambda: (act(gateway.rig, grants[2], "suspend"), time.monotonic())[1])
        wait_for(lambda: waits_for_a_lock(gateway), "the revocation waits")
        assert not revocation.done(), "the group has the grant until it is committed"
        go_on.set()
        outcomes, acknowledged = wave.result(), revocation.result()
    released = outcomes[2]
    # Too late for the window, on a busy machine: then nothing leaves at all.
    assert isinstance(released, UnavailableError) or acknowledged > released.deadline  # type: ignore[union-attr]
    outcomes = gateway.together(calls)
    assert [outcome is None for outcome in outcomes] == [False, False, True, False]
    refused = gateway.alone(calls[2])
    assert isinstance(refused, PoolError)
    assert refused.reason is Reason.GRANT_SUSPENDED


def test_a_grant_that_is_being_changed_holds_up_no_other(gateway: Gateway, resource: Resource) -> None:
    grants = [grant(resource, gateway.rig) for _ in range(3)]
    resource.publish(resource.batch(rows(1, 2)))
    calls = [gateway.call(grant_id) for grant_id in grants]
    with gateway.app.engines[0].begin() as connection:
        connection.execute(sa.text("SELECT FROM access_grant WHERE id = :id FOR UPDATE"), {"id": grants[0]})
        outcomes = gateway.together(calls)
    assert [isinstance(outcome, Release) for outcome in outcomes] == [False, True, True]


def test_a_group_gives_way_where_an_actor_is_being_revoked_and_has_written_nothing(
    gateway: Gateway, resource: Resource
) -> None:
    grants = [grant(resource, gateway.rig) for _ in range(3)]
    resource.publish(resource.batch(rows(1, 2)))
    with gateway.app.engines[0].begin() as connection:
        statement = sa.text("SELECT FROM identity_certificate WHERE serial = :serial FOR UPDATE")
        connection.execute(statement, {"serial": gateway.actor.certificate})
        outcomes = gateway.together([gateway.call(grant_id) for grant_id in grants])
    assert outcomes == [None] * 3
    assert gateway.state(grants) == {"audit_entry": [], "access_quota": [], "access_position": []}


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_group_whose_connection_dies_releases_nothing(
    gateway: Gateway, resource: Resource, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    grants = [grant(resource, gateway.rig) for _ in range(3)]
    resource.publish(resource.batch(rows(1, 2)))
    calls = [gateway.call(grant_id) for grant_id in grants]
    write = gateway.group._ledger.write

    def die(work: Any, written: Sequence[AuditEntry], *, last: bool = False) -> list[bytes]:
        hashes = write(work, written, last=last) if where == "after" else []
        pid = work.connection.scalar(sa.text("SELECT pg_backend_pid()"))
        assert gateway.rows("SELECT pg_terminate_backend(:pid)", pid=pid)
        wait_for(lambda: not gateway.rows("SELECT 1 FROM pg_stat_activity WHERE pid = :pid", pid=pid), "it is dead")
        return hashes or write(work, written, last=last)

    with monkeypatch.context() as patched:
        patched.setattr(gateway.group._ledger, "write", die)
        outcomes = gateway.together(calls)
    assert not any(isinstance(outcome, Release) for outcome in outcomes)
    assert gateway.state(grants) == {"audit_entry": [], "access_quota": [], "access_position": []}
    assert all(isinstance(outcome, Release) for outcome in gateway.together(calls)), "and the next one does"


_KILLED = """
import json, os, signal, sys
from pathlib import Path
from tests.attack.test_waking import opened
gateway = opened(Path(sys.argv[1]), sys.argv[2])
ledger, write = gateway.group._ledger, gateway.group._ledger.write
def dies(work, entries, *, last=False):
    hashes = write(work, entries, last=last)
    if sys.argv[3] == "committed":
        work.on_commit(lambda: os.kill(os.getpid(), signal.SIGKILL))
    else:
        os.kill(os.getpid(), signal.SIGKILL)
    return hashes
ledger.write = dies
gateway.together([gateway.call(one) for one in json.loads(sys.argv[4])])
"""


@pytest.mark.parametrize("when", ["open", "committed"])
def test_a_gateway_killed_in_a_wave_loses_and_doubles_nothing(gateway: Gateway, resource: Resource, when: str) -> None:
    grants = [grant(resource, gateway.rig) for _ in range(3)]
    resource.publish(resource.batch(rows(1, 2)))
    arguments = [str(gateway.world.folder), gateway.rig._labour.id, when, json.dumps(grants)]
    killed = subprocess.run([sys.executable, "-c", _KILLED, *arguments], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    # The log may say too much, never too little (ADR 0010); a slow group is committed in parts.
    there, *others = (len(stored) for stored in gateway.state(grants).values())
    assert others == [there] * 2
    assert (there > 0) == (when == "committed")
    outcomes = gateway.together([gateway.call(grant_id) for grant_id in grants])
    assert [len(outcome) for outcome in outcomes if isinstance(outcome, Release)] == [2] * 3
    assert overdrawn(gateway, grants) == {}
    again = [bool(entry["data"].get("again")) for entry in entries(gateway, grants)]
    assert (len(again), sum(again)) == (3 + there, there)
    ends = {row[0]: row[2] for row in gateway.state(grants)["access_position"]}
    assert len(set(ends.values())) == 1


def test_one_record_wakes_those_who_may_have_it_and_their_entries_share_commits(
    gateway: Gateway, resource: Resource
) -> None:
    """Through the door: long polls of a gateway that is a process."""
    rig = gateway.rig
    grants = [grant(resource, rig) for _ in range(30)]
    ended, suspended = grants[7], grants[20]
    polling = threading.Barrier(len(grants) + 1)

    def poll(grant_id: str) -> Any:
        consumer = Consumer(rig.consumer.pool, grant_id)
        position = consumer.fetch().next_position
        polling.wait(PATIENCE)
        try:
            return consumer.fetch(position, wait=60.0)
        except PoolError as error:
            return error

    with ThreadPoolExecutor(len(grants)) as threads:
        polls = {grant_id: threads.submit(poll, grant_id) for grant_id in grants}
        polling.wait(PATIENCE)
        time.sleep(0.5)  # one that has not begun to wait gets the record all the same
        act(rig, ended, "suspend")
        act(rig, ended, "terminate")
        act(rig, suspended, "suspend")
        resource.publish(resource.batch(rows(1)))
        answers = {grant_id: each.result(PATIENCE) for grant_id, each in polls.items()}
    for grant_id in (ended, suspended):
        assert isinstance(answers.pop(grant_id), RefusedError)
    late = {grant_id for grant_id, answer in answers.items() if isinstance(answer, UnavailableError)}
    assert all(len(answers[grant_id].values) == 1 for grant_id in answers.keys() - late)
    assert len(late) < len(answers) / 2, "of a busy machine"
    written = gateway.rows(
        "SELECT xmin::text, count(*) FROM audit_entry WHERE grant_id = ANY (:ids) AND action = :fetch "
        "AND decision = 'allow' GROUP BY xmin",
        ids=grants,
        fetch=FETCH,
    )
    assert sum(count for _, count in written) >= 28
    assert max(count for _, count in written) > 1, "one commit, several entries"
    assert overdrawn(gateway, grants) == {}


def test_the_log_verifies_after_all_this(gateway: Gateway) -> None:
    data = gateway.world.data
    waiting = "SELECT count(*) FROM audit_entry WHERE leaf_index IS NULL AND NOT refused"
    wait_for(lambda: gateway.rows(waiting) == [(0,)], "every entry is in the signed log")
    done = gateway.world.programs.run(
        "pool", "audit", "verify", "--files", str(data / "log"), "--key", str(data / "log.pub"),
        "--database", str(data / "database-url"), "--secrets", str(data / "secrets"), check=False,
    )  # fmt: skip
    findings = [line.split(":")[0] for line in done.stdout.splitlines() if re.match(r"[a-z]+\.[a-z_]+: ", line)]
    assert set(findings) <= {"grant.forged"}, done.stdout  # the one that was forged above
