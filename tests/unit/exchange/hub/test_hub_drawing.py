"""Drawing by example: joined and split numbers, moved and unnamed records, erased subjects, two workers, no rules."""

from dataclasses import replace

import pytest

from exchange.hub.drawing import laying
from exchange.hub.drawing.subjects import IdentifierFields
from exchange.hub.fold import fold as folding
from exchange.hub.fold.golden import FieldFlag, Provenance
from exchange.hub.fold.rules import parse
from exchange.hub.store.model import GoldenFlag
from schemas.errors import ConflictError, InvalidError, PoolError, Reason, UnavailableError
from schemas.record import Operation
from tests.kit.cases.hub_claims import document
from tests.kit.cases.hub_drawing import TOPICS, Hub, number
from tests.kit.twins.hub_pool import MemoryPool

POLICE, CIVIL, _, PERMITS = TOPICS


def person(of: int, **values: str) -> dict[str, str]:
    return {"id_type": "ric18", "id_number": number(of), **values}


@pytest.fixture
def hub() -> Hub:
    pool = MemoryPool()
    for topic in TOPICS:
        pool.add(topic)
    return Hub.new(pool)


def name(hub: Hub, of: int, type_: str = "ric18") -> object:
    row = hub.golden(hub.handle(of, type_)).get(hub.handle(of, type_))
    return None if row is None or row[1] is None else row[1]["full_name"]


def test_a_step_draws_once_and_the_pool_is_told(hub: Hub) -> None:
    hub.pool.publish(POLICE, "a", person(1, full_name="A"))
    hub.pool.publish(POLICE, "b", person(2, full_name="B"))
    first = hub.step(POLICE).run()
    assert (first.claims, first.subjects, first.caught_up) == (2, 2, True)
    assert (name(hub, 1), name(hub, 2)) == ("A", "B")
    again = hub.step(POLICE).run()
    assert (again.claims, again.caught_up) == (0, True)
    assert hub.state([])["positions"][POLICE].position == hub.pool.acknowledged[POLICE]


def test_conflicting_facts_are_shown_from_the_lead_and_neither_is_lost(hub: Hub) -> None:
    hub.pool.publish(CIVIL, "c", person(1, full_name="B"))
    hub.draw_all()
    assert name(hub, 1) == "B"
    hub.pool.publish(POLICE, "a", person(1, full_name="A"))
    hub.draw_all()
    _, _, prov = hub.golden(hub.handle(1))[hub.handle(1)]
    assert isinstance(prov, Provenance)
    assert name(hub, 1) == "A"
    assert prov.fields[0][1] & FieldFlag.CONFLICT
    assert len(hub.claims(hub.handle(1))) == 2
    assert len(hub.state([hub.handle(1)])["conflicts"]) == 1
    hub.pool.publish(CIVIL, "c", person(1, full_name="A"))
    hub.draw_all()
    assert hub.state([hub.handle(1)])["conflicts"] == set()


def test_a_link_joins_two_numbers_and_its_void_splits_them_again(hub: Hub) -> None:
    hub.pool.publish(POLICE, "p", {"id_type": "foreign_pr", "id_number": f"P{1:014}", "full_name": "old"})
    hub.draw_all()
    assert name(hub, 1, "foreign_pr") == "old"
    hub.pool.publish(POLICE, "a", person(1, full_name="new"), valid_from=5_000)
    hub.pool.publish(PERMITS, "l", person(1) | {"other_type": "foreign_pr", "other_number": f"P{1:014}"})
    hub.draw_all()
    passport, citizen = hub.handle(1, "foreign_pr"), hub.handle(1)
    rows = hub.golden(passport, citizen)
    assert rows[passport] == (GoldenFlag.MOVED | GoldenFlag.LINKED, None, citizen)
    assert rows[citizen][0] == GoldenFlag.LINKED
    assert name(hub, 1) in {"old", "new"}
    hub.pool.publish(PERMITS, "l", None)
    hub.draw_all()
    assert (name(hub, 1), name(hub, 1, "foreign_pr")) == ("new", "old")


def test_a_link_of_a_resource_that_is_not_trusted_joins_nobody(hub: Hub) -> None:
    hub.pool.publish(POLICE, "p", {"id_type": "foreign_pr", "id_number": f"P{1:014}", "full_name": "old"})
    hub.pool.publish(POLICE, "a", person(1, other_type="foreign_pr", other_number=f"P{1:014}", full_name="new"))
    hub.draw_all()
    assert (name(hub, 1), name(hub, 1, "foreign_pr")) == ("new", "old")


def test_a_record_that_names_another_person_than_before_is_gone_from_the_former(hub: Hub) -> None:
    hub.pool.publish(POLICE, "a", person(1, full_name="A"))
    hub.draw_all()
    hub.pool.publish(POLICE, "a", person(2, full_name="A"))
    hub.draw_all()
    assert (name(hub, 1), name(hub, 2)) == (None, "A")
    hub.pool.publish(POLICE, "a", None)
    hub.draw_all()
    assert name(hub, 2) is None


def test_a_record_without_an_identifier_makes_no_claim_and_stops_nothing(hub: Hub) -> None:
    hub.pool.publish(POLICE, "x", {"id_type": "ric18", "id_number": "12", "full_name": "X"})
    hub.pool.publish(POLICE, "y", {"id_type": "ric18", "id_number": "", "full_name": "Y"})
    hub.pool.publish(POLICE, "a", person(1, full_name="A"))
    result = hub.step(POLICE).run()
    assert (result.unnamed, result.claims) == (2, 1)
    assert name(hub, 1) == "A"


def test_a_void_of_what_never_came_is_nothing(hub: Hub) -> None:
    hub.pool.publish(POLICE, "a", None)
    result = hub.step(POLICE).run()
    assert (result.claims, result.subjects) == (0, 0)
    assert hub.state([])["positions"][POLICE] is not None


def test_of_an_erased_subject_that_something_came_is_kept_and_not_what(hub: Hub) -> None:
    hub.pool.publish(POLICE, "a", person(1, full_name="A"))
    hub.draw_all()
    with hub.db.begin() as work:
        hub.store.erase_key(work, hub.handle(1), 5)
    hub.pool.publish(POLICE, "a", person(1, full_name="A2"))
    hub.pool.publish(CIVIL, "b", person(2, full_name="B"))
    hub.draw_all()
    assert (name(hub, 1), name(hub, 2)) == (None, "B")
    claims = hub.claims(hub.handle(1))
    assert [one.values for one in claims] == [None, None]
    with hub.db.read() as reader:
        assert [one.sealed is None for one in hub.store.claims(reader, [hub.handle(1)])] == [False, True]


def test_of_two_workers_on_one_position_the_second_writes_nothing(hub: Hub) -> None:
    hub.pool.publish(POLICE, "a", person(1, full_name="A"))

    class Overtaken(MemoryPool):
        def fetch(self, grant: str, position: bytes) -> object:  # type: ignore[override]
            found = hub.pool.fetch(grant, position)
            hub.step(POLICE).run()
            return found

    source = Overtaken()
    source._schemas = hub.pool._schemas
    with pytest.raises(ConflictError) as caught:
        hub.step(POLICE, source=source).run()
    assert caught.value.reason is Reason.VERSION_CONFLICT
    assert len(hub.claims(hub.handle(1))) == 1


def test_without_active_rules_that_name_the_resource_nothing_is_drawn(hub: Hub) -> None:
    hub.pool.publish("travel-permits.v1", "l", person(1))
    only = {"rule": "lead", "order": ["population.v1"]}
    fields = dict.fromkeys(("full_name", "sex_code", "mobile_phone", "titles"), only)
    hub.activate(parse(document(2, **fields) | {"links": []}))
    with pytest.raises(ConflictError) as caught:
        hub.step(PERMITS).run()
    assert caught.value.reason is Reason.TRANSITION_NOT_ALLOWED
    assert hub.pool.acknowledged == {}


def test_other_rules_fold_what_is_drawn_from_then_on_by_them(hub: Hub) -> None:
    hub.pool.publish(POLICE, "a", person(1, full_name="A"))
    hub.pool.publish(CIVIL, "c", person(1, full_name="B"))
    hub.draw_all()
    assert name(hub, 1) == "A"
    hub.activate(parse(document(2, full_name={"rule": "lead", "order": ["marriages.v1", "population.v1"]})))
    hub.pool.publish(CIVIL, "c", person(1, full_name="C"))
    hub.draw_all()
    assert name(hub, 1) == "C"


def test_a_subject_that_cannot_be_folded_is_set_aside_and_the_step_goes_on(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.pool.publish(POLICE, "a", person(1, full_name="A"))
    hub.draw_all()
    right = folding._cell

    def wrong(field: object, now: list[object]) -> object:
        if any(one.claim.values["full_name"] == "boom" for one in now):  # type: ignore[attr-defined]
            raise ZeroDivisionError
        return right(field, now)  # type: ignore[arg-type]

    monkeypatch.setattr(folding, "_cell", wrong)
    hub.pool.publish(POLICE, "a", person(1, full_name="boom"), Operation.CORRECT)
    hub.pool.publish(POLICE, "b", person(2, full_name="B"))
    result = hub.step(POLICE).run()
    assert (result.set_aside, result.subjects, result.claims) == (1, 1, 2)
    assert hub.golden(hub.handle(1))[hub.handle(1)] == (GoldenFlag.QUARANTINED, None, None)
    assert name(hub, 2) == "B"
    monkeypatch.undo()
    hub.pool.publish(POLICE, "a", person(1, full_name="A3"))
    hub.draw_all()
    assert name(hub, 1) == "A3"


def test_a_pool_that_is_away_leaves_everything_as_it_was(hub: Hub) -> None:
    class Away(MemoryPool):
        def commit(self, grant: str, position: bytes) -> None:
            raise UnavailableError(Reason.GATEWAY_UNAVAILABLE, "away")

    hub.pool.publish(POLICE, "a", person(1, full_name="A"))
    source = Away()
    source._topics, source._schemas = hub.pool._topics, hub.pool._schemas
    with pytest.raises(UnavailableError):
        hub.step(POLICE, source=source).run()
    assert name(hub, 1) == "A", "the step is committed; the acknowledgement trails"
    hub.pool.publish(POLICE, "b", person(2, full_name="B"))
    hub.draw_all()
    assert hub.state([])["positions"][POLICE].position == hub.pool.acknowledged[POLICE]


def test_records_that_cannot_be_decoded_stop_the_step_before_it_writes(hub: Hub) -> None:
    hub.pool.publish(POLICE, "a", person(1, full_name="A"))
    hub.pool.damage(POLICE)
    with pytest.raises(PoolError) as caught:
        hub.step(POLICE).run()
    assert caught.value.reason is Reason.RECORD_INVALID
    assert hub.claims(hub.handle(1)) == []


def test_items_have_a_record_each_and_follow_their_subject(hub: Hub) -> None:
    licences = Hub.new(hub.pool, library="e-licence")
    first = hub.pool.publish(POLICE, "licence-1", person(1, full_name="driver"))
    hub.pool.publish(POLICE, "licence-2", person(1, full_name="pilot"))
    licences.draw_all()

    def owned(of: int) -> list[bytes]:
        with licences.db.read() as reader:
            return [one.item for one in licences.store.items(reader, "e-licence", [licences.handle(of)])]

    assert len(owned(1)) == 2
    hub.pool.publish(POLICE, "licence-1", person(2, full_name="driver"))
    licences.draw_all()
    assert owned(2) == [first.item]
    assert len(owned(1)) == 1


def test_the_type_of_an_identifier_comes_from_its_field_and_a_passport_s_country_too() -> None:
    fields = IdentifierFields(number="no", type_field="kind", country_field="country")
    found = fields.read({"no": "e12345678", "kind": "passport", "country": "FRA"})
    assert found is not None
    assert (found.type, found.number) == ("passport:FRA", "E12345678")
    assert fields.read({"no": None, "kind": "ric18"}) is None
    fixed = IdentifierFields(number="uscc", type="uscc").read({"uscc": "91350211M000100Y43"})
    assert fixed is not None
    assert fixed.type == "uscc"
    for values in ({"no": "1"}, {"no": 5, "kind": "ric18"}, {"no": "E1234567", "kind": "passport"}):
        with pytest.raises(InvalidError):
            fields.read(values)
    assert replace(fields, number="x").read({}) is None


def test_what_cannot_be_laid_over_is_folded(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.pool.publish(POLICE, "a", person(1, full_name="A"))
    assert hub.step(POLICE).run().laid == 1

    def wrong(*_: object) -> object:
        raise ZeroDivisionError

    monkeypatch.setattr(laying, "overlay", wrong)
    hub.pool.publish(POLICE, "a", person(1, full_name="B"))
    result = hub.step(POLICE).run()
    assert (result.laid, result.subjects, result.set_aside) == (0, 1, 0)
    assert name(hub, 1) == "B"


def test_a_dropped_cache_is_made_again_from_the_claims(hub: Hub) -> None:
    hub.pool.publish(CIVIL, "c", person(1, full_name="B", sex_code="2"))
    hub.pool.publish(POLICE, "a", person(1, full_name="A"))
    hub.draw_all()
    with hub.db.begin() as work:
        hub.store.drop_golden(work)
    hub.pool.publish(CIVIL, "c", person(1, full_name="C"))
    hub.draw_all()
    assert name(hub, 1) == "A", "a claim from before the cache was dropped still counts"
    assert len(hub.claims(hub.handle(1))) == 3
