"""Replay: a dropped cache, other rules and the clock; the check that finds a record which somebody put back."""

import random
from dataclasses import replace

import pytest

from exchange.hub.fold.rules import parse
from exchange.hub.store.model import GoldenFlag
from schemas.errors import ConflictError, CorruptError, Reason
from schemas.record import Operation
from tests.kit import share
from tests.kit.cases.hub_claims import document
from tests.kit.cases.hub_drawing import NOW, TOPICS, Hub, number, publish_some
from tests.kit.twins.hub_pool import MemoryPool

_OF_POLICE = {"rule": "lead", "order": ["population.v1"]}
POLICE, CIVIL = TOPICS[:2]
PERSONS = 3
RUNS = share.count(500, 30)
OTHER_LEADS = document(2, full_name={"rule": "lead", "order": ["marriages.v1", "population.v1"]})


def person(of: int, **values: str) -> dict[str, str]:
    return {"id_type": "ric18", "id_number": number(of), **values}


@pytest.fixture
def hub() -> Hub:
    pool = MemoryPool()
    for topic in TOPICS:
        pool.add(topic)
    return Hub.new(pool)


def name(hub: Hub, of: int) -> object:
    row = hub.golden(hub.handle(of)).get(hub.handle(of))
    return None if row is None or row[1] is None else row[1]["full_name"]


def drop(hub: Hub) -> None:
    with hub.db.begin() as work:
        hub.store.drop_golden(work)


@pytest.mark.counted
def test_replay_rebuild_and_incremental_drawing_give_the_same_records() -> None:
    chance = share.random_of("replays")
    for _ in range(RUNS):
        pool = MemoryPool(chance)
        publish_some(pool, chance, 14, PERSONS, linked=True)
        hub = Hub.new(pool)
        hub.draw_all(chance)
        everyone = [hub.handle(one, kind) for one in range(PERSONS) for kind in ("ric18", "foreign_pr")]
        drawn = hub.state(everyone)
        known = {handle for handle in everyone if handle in drawn["golden"]}
        assert hub.replay().differing(sorted(known)) == set()
        hub.replay().run()
        assert same(hub.state(everyone)) == same(drawn)
        drop(hub)
        page_by_page(hub, chance)
        assert same(hub.state(everyone)) == same(drawn)


def same(state: dict[str, object]) -> dict[str, object]:
    """Return a state without the flag that others were ever linked."""
    golden: dict[object, tuple[GoldenFlag, object, object]] = state["golden"]  # type: ignore[assignment]
    return state | {"golden": {one: (row[0] & ~GoldenFlag.LINKED, *row[1:]) for one, row in golden.items()}}


def page_by_page(hub: Hub, chance: random.Random) -> None:
    page = hub.replay().page(limit=chance.randint(1, 3))
    while page.last is not None:
        page = hub.replay().page(page.last, limit=chance.randint(1, 3))


def test_records_that_nothing_touches_get_the_rules_that_are_active_now(hub: Hub) -> None:
    hub.pool.publish(POLICE, "a", person(1, full_name="A"))
    hub.pool.publish(CIVIL, "c", person(1, full_name="B"))
    hub.draw_all()
    hub.activate(parse(OTHER_LEADS))
    assert name(hub, 1) == "A", "until it is replayed, under the version that its row names"
    assert hub.replay().differing([hub.handle(1)]) == set(), "a record of other rules is not compared"
    assert hub.replay().run() == 1
    assert name(hub, 1) == "B"
    with hub.db.read() as reader:
        row = hub.store.golden(reader, [hub.handle(1)])[hub.handle(1)]
        assert (row.rules, row.applied) == (2, hub.store.last_batches(reader)[hub.handle(1)[0]])


def test_a_claim_that_begins_counts_once_it_is_replayed_and_is_no_difference_before(hub: Hub) -> None:
    hub.pool.publish(POLICE, "a", person(1, full_name="now"))
    hub.pool.publish(POLICE, "a", person(1, full_name="later"), valid_from=NOW + 10)
    hub.draw_all()
    assert name(hub, 1) == "now"
    later = hub.replay()
    later._now = lambda: NOW + 20
    assert later.differing([hub.handle(1)]) == set()
    later.run()
    assert name(hub, 1) == "later"


def test_a_record_that_somebody_put_back_whole_is_found(hub: Hub) -> None:
    hub.pool.publish(POLICE, "a", person(1, full_name="old"))
    hub.pool.publish(POLICE, "b", person(2, full_name="other"))
    hub.draw_all()
    handles = [hub.handle(1), hub.handle(2)]
    with hub.db.read() as reader:
        old = hub.store.golden(reader, handles)[handles[0]]
    hub.pool.publish(POLICE, "a", person(1, full_name="new"), Operation.CORRECT)
    hub.draw_all()
    assert hub.replay().differing(handles) == set()
    with hub.db.begin() as work:
        hub.store.put_golden(work, [old])
    assert name(hub, 1) == "old", "it opens: all of its columns are its own"
    assert hub.replay().differing(handles) == {handles[0]}
    with hub.db.begin() as work:
        hub.store.put_golden(work, [replace(old, rules=2)])
    with pytest.raises(CorruptError):
        hub.golden(handles[0])


def test_a_missing_record_is_a_difference_and_an_erased_subject_is_none(hub: Hub) -> None:
    hub.pool.publish(POLICE, "a", person(1, full_name="A"))
    hub.pool.publish(POLICE, "b", person(2, full_name="B"))
    hub.draw_all()
    handles = [hub.handle(1), hub.handle(2)]
    with hub.db.begin() as work:
        hub.store.erase_key(work, handles[1], 5)
    drop(hub)
    assert hub.replay().differing(handles) == {handles[0]}
    assert hub.replay().run() == 1
    assert hub.replay().differing(handles) == set()


def test_what_another_library_knows_of_a_subject_is_not_touched(hub: Hub) -> None:
    hub.pool.publish(POLICE, "a", person(1, full_name="A"))
    hub.draw_all()
    before = hub.state([hub.handle(1)])
    only = {"full_name": {"rule": "lead", "order": ["insured.v2"]}}
    licences = replace(hub, library="e-licence")
    licences.activate(parse({"library": "e-licence", "version": 1, "fields": only}))
    hub.pool.publish("insured.v2", "licence", person(1, full_name="driver"))
    hub.pool.publish("insured.v2", "licence-2", person(2, full_name="pilot"))
    licences.step("insured.v2").run()
    hub.activate(parse(document(2, **dict.fromkeys(("full_name", "mobile_phone", "sex_code", "titles"), _OF_POLICE))))
    assert hub.replay().run() == 1
    assert name(hub, 1) == "A"
    assert hub.golden(hub.handle(2)) == {}, "population knows nothing of the second person"
    _, _, provenance = hub.golden(hub.handle(1))[hub.handle(1)]
    assert provenance is not None
    assert before["golden"][hub.handle(1)][2].sources == provenance.sources  # type: ignore[union-attr]
    with hub.db.read() as reader:
        assert len(hub.store.items(reader, "e-licence", [hub.handle(1)])) == 1


def test_without_active_rules_nothing_is_replayed(hub: Hub) -> None:
    hub.pool.publish(POLICE, "a", person(1, full_name="A"))
    hub.draw_all()
    nobody = replace(hub, library="address").replay()
    with pytest.raises(ConflictError) as caught:
        nobody.run()
    assert caught.value.reason is Reason.TRANSITION_NOT_ALLOWED
    with pytest.raises(ValueError, match="expected one of"):
        replace(hub, library="credit").replay()
