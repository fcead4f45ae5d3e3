"""Traps of look-up and verification in a pool with real grants, its log and its database."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
import sqlalchemy as sa

from exchange.access.predicates.evaluation import Answer
from exchange.lookups.subjects import Subject
from registry.avro.parser import parse
from registry.codec.codec import engine_for
from schemas.errors import PoolError, Reason
from schemas.record import unframe
from tests.kit.patience import wait_for
from tests.kit.world.asked_hub import CALL, NAME, OLD, AskedHub, asked_hub, number, subjects

pytestmark = [pytest.mark.e2e, pytest.mark.postgres]

HERE_1, ELSEWHERE, ERASED, RESTRICTED, UNKNOWN = 1, 2, 3, 4, 9


@pytest.fixture(scope="module")
def hub() -> Iterator[AskedHub]:
    with asked_hub() as made:
        for person in (HERE_1, ERASED, RESTRICTED):
            made.add(person)
        made.add(ELSEWHERE, household_division_code="330100")
        made.hide(ERASED, RESTRICTED)
        yield made


def shown(hub: AskedHub, answer: Any, at: int) -> dict[str, Any]:
    with hub.db.read() as reader:
        text = hub.records.views.schema_text(reader, answer.schema_id)
    (row,) = engine_for(parse(text)).decode([unframe(answer.values[at])[1]]).to_pylist()
    return dict(row)


def entries(hub: AskedHub, action: str) -> list[dict[str, Any]]:
    found = hub.world.root.get("/audit/entries", {"action": action, "limit": 100})
    return [one["entry"] for one in found]


def test_what_leaves_is_the_grant_s_and_its_entry_is_in_the_log(hub: AskedHub) -> None:
    grant = hub.granted()
    answer = hub.lookup(grant, UNKNOWN, HERE_1)
    assert answer.values[0] == b""
    assert set(shown(hub, answer, 1)) == {"full_name", "birth_date"}
    wait_for(lambda: answer.entry_id in {one["id"] for one in entries(hub, "hub:subject:lookup")}, "the entry")
    (entry,) = [one for one in entries(hub, "hub:subject:lookup") if one["id"] == answer.entry_id]
    assert (entry["data"]["asked"], entry["grant"]["id"], entry["case"]) == (2, grant, CALL.case)


def test_absent_is_one_word_with_as_many_statements(hub: AskedHub) -> None:
    grant = hub.granted()
    hub.lookup(grant, HERE_1)
    counted: Counter[int] = Counter()
    asked = [0]

    def count(*_: object) -> None:
        counted[asked[0]] += 1

    engines = (hub.core.storage.engine, hub.core.storage.autocommit)  # reads have their own
    for engine in engines:
        sa.event.listen(engine, "before_cursor_execute", count)
    try:
        for person in (HERE_1, ELSEWHERE, ERASED, RESTRICTED, UNKNOWN):
            asked[0] = person
            answer = hub.lookup(grant, person)
            assert bool(answer.values[0]) == (person == HERE_1)
    finally:
        for engine in engines:
            sa.event.remove(engine, "before_cursor_execute", count)
    assert len(counted) == 5
    assert len(set(counted.values())) == 1, counted


def test_a_person_of_eighty_is_verified_and_nothing_tells_the_date(hub: AskedHub) -> None:
    body = {
        "name": "alive-80", "library": "population", "answers": "年满八十周岁且健在", "replaces": ["CERT-0031"],
        "expression": {"op": "and", "parts": [
            {"op": "range", "field": "age", "low": 80, "high": None},
            {"op": "eq", "field": "death_flag", "value": False},
        ]},
    }  # fmt: skip
    proposed = hub.world.root.post("/hub/predicates", body)
    predicate = hub.world.people.second(hub.world).post(f"/hub/predicates/{proposed['id']}/confirmation")["predicate"]
    fields = ["birth_date", "death_flag"]
    grant = hub.granted(fields=fields, access_mode="verify", predicates=[predicate])
    answer = hub.verify(grant, predicate, HERE_1, ELSEWHERE, ERASED, RESTRICTED, UNKNOWN)
    assert answer.answers == [Answer.YES] + [Answer.UNKNOWN] * 4
    wait_for(lambda: entries(hub, "hub:subject:verify"), "the entry")
    (entry,) = entries(hub, "hub:subject:verify")
    for said in (OLD.isoformat(), number(HERE_1), NAME, '"yes"'):
        assert said not in f"{entry} {answer!r}"
    with pytest.raises(PoolError) as error:
        hub.lookup(grant, HERE_1)
    assert error.value.reason is Reason.GRANT_MODE


def test_no_identifier_is_in_an_error_an_entry_or_the_pool_s_log(
    hub: AskedHub, capfd: pytest.CaptureFixture[str]
) -> None:
    grant = hub.granted(quota_per_day=1)
    said = []
    wrong: list[list[Subject]] = [
        [Subject(number(HERE_1), "ric18")],
        [Subject("ric18", number(HERE_1)[:-1])],
        subjects(HERE_1, UNKNOWN),
        [],
    ]
    for each in wrong:
        with pytest.raises(PoolError) as error:
            hub.service.lookup(hub.actor, CALL, grant, each)
        said.append(f"{error.value} {error.value.details}")
    hub.lookup(grant, HERE_1)
    hub.core.audit.enforcer.flush()
    written = [str(one) for action in ("lookup", "verify") for one in entries(hub, f"hub:subject:{action}")]
    out = capfd.readouterr()
    for text in (*said, *written, (hub.world.folder / "pool.log").read_text(), out.out, out.err):
        for person in (HERE_1, UNKNOWN):
            assert number(person)[:-1] not in text
        assert NAME not in text


def test_no_answer_leaves_after_the_acknowledgement_of_a_suspension(
    hub: AskedHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    grant = hub.granted()
    apply, turns = hub.records.views.apply, itertools.count()

    def slow(*arguments: Any) -> Any:
        """Take longer than the release window in every fourth call, as a read of many rows may."""
        time.sleep(1.5 if next(turns) % 4 == 0 else 0)
        return apply(*arguments)

    monkeypatch.setattr(hub.records.views, "apply", slow)
    stop, left, refused = threading.Event(), list[float](), list[Reason]()

    def ask() -> None:
        while not stop.is_set():
            try:
                answer = hub.lookup(grant, HERE_1)
            except PoolError as error:
                refused.append(error.reason)
                continue
            now = time.monotonic()
            if now <= answer.deadline:  # what a door sends
                left.append(now)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for one in threads:
        one.start()
    try:
        wait_for(lambda: len(left) > 10, "answers")
        hub.keeper.account("sharing_office_head").post(f"/grants/{grant}/suspend", {"reason": "整改"})
        acknowledged = time.monotonic()
        wait_for(lambda: len(refused) > 10, "refusals")
    finally:
        stop.set()
        for one in threads:
            one.join()
    assert max(left) < acknowledged
    assert set(refused) <= {Reason.GRANT_SUSPENDED, Reason.VERSION_CONFLICT, Reason.RATE_LIMITED}


def test_every_answer_of_a_database_that_is_cut_off_has_its_entry(hub: AskedHub) -> None:
    grant = hub.granted()
    stop, answered, failed = threading.Event(), list[str](), [0]

    def ask() -> None:
        while not stop.is_set():
            try:
                answered.append(hub.lookup(grant, HERE_1).entry_id)
            except PoolError:
                failed[0] += 1

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for one in threads:
        one.start()
    admin = sa.create_engine((hub.world.data / "database-url").read_text().strip())
    kill = sa.text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND state <> 'idle'"
    )
    try:
        for _ in range(8):
            before = len(answered)
            with suppress(sa.exc.SQLAlchemyError), admin.connect() as connection:
                connection.execute(kill)
            wait_for(lambda before=before: len(answered) > before, "another answer")
    finally:
        stop.set()
        for one in threads:
            one.join()
        admin.dispose()
    assert failed[0], "no call was cut off"
    assert len(set(answered)) == len(answered)
    kept = sa.text("SELECT count(*) FROM audit_entry WHERE id = ANY(CAST(:ids AS uuid[]))")
    with hub.core.storage.engine.connect() as connection:
        assert connection.execute(kept, {"ids": answered}).scalar_one() == len(answered)
