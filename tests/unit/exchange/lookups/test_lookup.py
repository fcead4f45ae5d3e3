"""Look-up and verification over golden records, in memory and on PostgreSQL: what leaves, and what the entry says."""

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import pytest

from exchange.access.predicates.evaluation import Answer
from exchange.hub.store.model import DISPUTED, RESTRICTED, GoldenFlag
from exchange.hub.store.postgres import PostgresHub
from exchange.hub.store.postgres_rules import PostgresRules
from exchange.hub.store.tables import metadata
from exchange.lookups.answer_leaf import salted_root
from exchange.lookups.subjects import Subject
from registry.database.unit_of_work import PostgresDatabase
from schemas.access import AccessMode, Action, Compare, GrantState
from schemas.audit import Decision, to_leaf
from schemas.errors import CorruptError, InvalidError, PoolError, Reason
from tests.kit.cases.grants import CONSUMER, STRANGER, a_connector
from tests.kit.cases.hub_lookups import CALL, MICROSECONDS, OLD, Library, number, subject
from tests.kit.row_tags import row_tags


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.postgres)])
def library(request: pytest.FixtureRequest) -> Iterator[Library]:
    if request.param == "memory":
        yield Library()
        return
    engine = request.getfixturevalue("engine")
    metadata.create_all(engine)
    yield Library(PostgresDatabase(engine), PostgresHub(row_tags()), PostgresRules(row_tags()))


def refused(call: Any) -> Reason:
    with pytest.raises(PoolError) as error:
        call()
    return error.value.reason


def bits(text: object) -> bytes:
    return base64.b64decode(str(text))


def test_a_look_up_shows_the_fields_of_the_grant_in_the_form_of_its_masks_and_the_entry_says_no_value(
    library: Library,
) -> None:
    library.add(1)
    library.add(2, full_name="李四", birth_date=None)
    answer = library.lookup(2, 9, 1, request=b"r" * 16)
    assert [bool(one) for one in answer.values] == [True, False, True]
    assert library.shown(answer.values[0]) == {"full_name": "李四", "birth_date": None, "mobile_phone": "138****8000"}
    assert library.shown(answer.values[2])["birth_date"] == OLD
    (entry,) = library.entries
    assert (entry.action, entry.decision, entry.id) == (Action.HUB_LOOKUP, Decision.ALLOW, answer.entry_id)
    data = entry.data
    assert (data["library"], data["asked"], data["rules"], data["epoch"]) == ("population", 3, 1, "2026-05")
    assert (data["fields"], data["request"]) == (["full_name", "birth_date", "mobile_phone"], (b"r" * 16).hex())
    assert bits(data["found"]) == bytes([0b10100000])
    assert len(bits(data["subjects"])) == 3 * 16
    assert data["root"] == salted_root(answer.salt, answer.values).hex()
    assert answer.salt.hex() not in to_leaf(entry).decode()
    assert dict(answer.basis) == dict(data["basis"])  # type: ignore[arg-type]
    for said in (number(1), "李四", "138****8000", "1946", library.handle(1).hex()):
        assert said not in to_leaf(entry).decode()


def test_absent_is_one_word(library: Library) -> None:
    for person in range(1, 6):
        library.add(person)
    library.add(2, household_division_code="330100")  # outside the row filter
    library.erase(3)
    library.mark(4, RESTRICTED)
    library.add(5, flags=GoldenFlag.QUARANTINED)
    answer = library.lookup(1, 2, 3, 4, 5, 6)
    assert [bool(one) for one in answer.values] == [True] + [False] * 5
    leaves = []
    for person in (2, 3, 4, 5, 6):
        library.entries.clear()
        alone = library.lookup(person)
        assert alone.values == [b""]
        leaves.append(library.entries[0].data)
    assert len({tuple(one) for one in leaves}) == 1, "every leaf has the same members"
    assert {(one["asked"], one["found"], len(str(one["subjects"]))) for one in leaves} == {(1, "AA==", 24)}


def test_quota_counts_who_was_asked_and_a_call_over_it_is_refused_whole(library: Library) -> None:
    library.add(1)
    library.grant = replace(library.grant, quota_per_day=3)
    library.lookup(8, 9)
    assert library.asked == 2
    assert refused(lambda: library.lookup(1, 2)) is Reason.QUOTA_EXHAUSTED
    assert library.asked == 2
    assert (library.entries[-1].decision, library.entries[-1].reason) == (Decision.DENY, Reason.QUOTA_EXHAUSTED)
    assert library.lookup(1).values[0]


@pytest.mark.parametrize(
    ("bend", "reason"),
    [
        ({"state": GrantState.SUSPENDED}, Reason.GRANT_SUSPENDED),
        ({"access_mode": AccessMode.STREAM}, Reason.GRANT_MODE),
        ({"access_mode": AccessMode.VERIFY}, Reason.GRANT_MODE),
        ({"purpose": "statistics"}, Reason.PURPOSE_MISMATCH),
        ({"case": "HR-1"}, Reason.CASE_MISMATCH),
        ({"consumer": STRANGER}, Reason.GRANT_OTHER_CONSUMER),
    ],
)
def test_a_denial_is_an_entry_with_its_reason(bend: dict[str, Any], reason: Reason) -> None:
    library = Library()
    library.add(1)
    library.grant = replace(library.grant, **bend)
    assert refused(lambda: library.lookup(1)) is reason
    (entry,) = library.entries
    assert (entry.action, entry.decision, entry.reason) == (Action.HUB_LOOKUP, Decision.DENY, reason)


def test_without_a_durable_entry_nothing_leaves(library: Library) -> None:
    library.add(1)
    library.away = True
    assert refused(lambda: library.lookup(1)) is Reason.DATABASE_UNAVAILABLE
    assert not library.entries


def test_an_answer_whose_entry_came_late_does_not_leave() -> None:
    library = Library()
    library.add(1)
    times = iter((0.0, 0.6))
    library.service = library.made(monotonic=lambda: next(times))
    assert refused(lambda: library.lookup(1)) is Reason.RELEASE_TOO_LATE
    assert len(library.entries) == 1, "the log may claim too much, never too little"


def test_a_grant_that_is_suspended_while_records_are_read_answers_nothing() -> None:
    library = Library()
    library.add(1)

    def view(*arguments: Any) -> Any:
        library.grant = replace(library.grant, state=GrantState.SUSPENDED, version=2)
        return library.view(*arguments)

    library.service = library.made(views=type("", (), {"apply": staticmethod(view)}))
    assert refused(lambda: library.lookup(1)) is Reason.GRANT_SUSPENDED
    assert {one.decision for one in library.entries} == {Decision.DENY}


def test_a_number_in_the_place_of_a_type_is_in_no_error() -> None:
    library = Library()
    for wrong in (Subject(number(1), "ric18"), Subject("ric18", number(1)[:17]), Subject("ric18", "一" + number(1))):
        with pytest.raises(InvalidError) as error:
            library.service.lookup(a_connector(CONSUMER), CALL, library.grant.id, [subject(2), wrong])
        assert error.value.reason is Reason.IDENTIFIER_INVALID
        assert number(1)[:14] not in f"{error.value} {error.value.details} {wrong!r}"
        assert "subject 2 of 2" in str(error.value)


def test_a_call_names_no_more_subjects_than_its_grant_says() -> None:
    library = Library()
    library.grant = replace(library.grant, batch_max=2)
    assert refused(lambda: library.lookup(1, 2, 3)) is Reason.REQUEST_INVALID
    assert refused(library.lookup) is Reason.REQUEST_INVALID


def test_a_thousand_subjects_are_one_entry(library: Library) -> None:
    library.add(500)
    answer = library.lookup(*range(1_000))
    assert [at for at, one in enumerate(answer.values) if one] == [500]
    (entry,) = library.entries
    assert entry.data["asked"] == 1_000
    assert len(to_leaf(entry)) < 65_535


def test_rows_that_were_swapped_are_an_error_and_never_another_ones_answer(library: Library) -> None:
    library.add(1)
    library.add(2)
    with library.db.read() as reader:
        rows = library.store.golden(reader, [library.handle(1), library.handle(2)])
    one, two = rows[library.handle(1)], rows[library.handle(2)]
    with library.db.begin() as work:
        library.store.put_golden(work, [replace(one, sealed=two.sealed)])
    with pytest.raises(CorruptError):
        library.lookup(1)
    assert not library.entries


def test_a_person_of_eighty_is_verified_and_no_birth_date_leaves(library: Library) -> None:
    library.add(1)
    library.add(2, birth_date=OLD + timedelta(days=1))
    library.add(3, death_flag=True)
    library.add(4, death_flag=None)
    library.add(5, household_division_code="330100")
    library.verifies()
    answer = library.verify(1, 2, 3, 4, 5, 6)
    assert answer.answers == [Answer.YES, Answer.NO, Answer.NO, Answer.UNKNOWN, Answer.UNKNOWN, Answer.UNKNOWN]
    (entry,) = library.entries
    leaf = to_leaf(entry).decode()
    assert entry.action == Action.HUB_VERIFY
    assert bits(entry.data["answered"]) == bytes([0b11100000])
    assert (entry.data["predicate"], entry.data["version"], entry.data["replaces"]) == ("alive-80", 1, ["CERT-0031"])
    assert entry.data["root"] == salted_root(answer.salt, [one.encode() for one in answer.answers]).hex()
    unsalted = hashlib.sha256(b"\x00" + answer.answers[0].encode()).digest()
    alone = library.verify(1)
    assert library.entries[1].data["root"] == salted_root(alone.salt, [b"yes"]).hex() != unsalted.hex()
    assert "yes" not in leaf.replace("bytes", "")
    for said in ("1946", str((OLD - date(1970, 1, 1)).days), number(1)):
        assert said not in leaf
        assert said not in repr(answer)


def test_at_midnight_in_asia_shanghai_a_person_is_eighty() -> None:
    library = Library()
    library.add(1, birth_date=date(1946, 5, 5))
    library.verifies()
    library.now = MICROSECONDS + (6 * 3_600 + 29 * 60 + 59) * 1_000_000  # 23:59:59 of 4 May there
    assert library.verify(1).answers == [Answer.NO]
    library.now += 1_000_000
    assert library.verify(1).answers == [Answer.YES]


def test_what_is_in_conflict_disputed_or_may_have_changed_is_unknown(library: Library) -> None:
    library.add(1, conflict="birth_date")
    library.add(2)
    library.mark(2, DISPUTED, "death_flag")
    library.add(3)
    library.mark(3, DISPUTED)
    library.add(4, change=MICROSECONDS - 1)
    library.add(5, conflict="full_name")  # not asked
    library.verifies()
    assert library.verify(1, 2, 3, 4, 5).answers == [Answer.UNKNOWN] * 4 + [Answer.YES]


def test_a_predicate_that_the_grant_does_not_name_is_a_denial() -> None:
    library = Library()
    library.add(1)
    library.verifies()
    assert refused(lambda: library.verify(1, predicate="alive-79/1")) is Reason.PREDICATE_UNKNOWN
    assert [(one.decision, one.reason) for one in library.entries] == [(Decision.DENY, Reason.PREDICATE_UNKNOWN)]


def test_no_predicate_is_answered_under_a_grant_of_look_ups_and_no_record_under_one_of_predicates() -> None:
    library = Library()
    library.add(1)
    assert refused(lambda: library.verify(1)) is Reason.GRANT_MODE
    library.verifies()
    assert refused(lambda: library.lookup(1)) is Reason.GRANT_MODE


def test_the_view_is_that_of_today(library: Library) -> None:
    library.add(1)
    assert library.shown(library.lookup(1).values[0])["birth_date"] == OLD
    library.grant = replace(library.grant, version=2, fields=("full_name",), masks=())
    assert [*library.shown(library.lookup(1).values[0])] == ["full_name"]
    library.grant = replace(library.grant, version=3, row_filter=Compare("eq", "household_division_code", "1"))
    assert library.lookup(1).values == [b""]


def test_who_was_linked_is_answered_under_each_of_the_numbers(library: Library) -> None:
    library.add(1)
    library.add(2)
    with library.db.begin() as work:
        row = library.vault.golden(b"", handle=library.handle(2), flags=GoldenFlag.MOVED, prov=bytes(library.handle(1)))
        library.store.put_golden(work, [row])
    assert library.shown(library.lookup(2).values[0])["full_name"] == "姓名1"
    library.mark(1, RESTRICTED)
    assert library.lookup(2).values == [b""]


def test_a_row_that_somebody_leads_to_another_subject_gives_no_answer() -> None:
    library = Library()
    library.add(1)
    library.add(2)
    library.add(3)
    moved = {"flags": GoldenFlag.MOVED, "prov": bytes(library.handle(1))}
    two, three = library.handle(2), library.handle(3)
    honest = library.vault.golden(b"", handle=three, flags=GoldenFlag.MOVED, prov=bytes(two))
    with library.db.begin() as work:
        of_two = library.store.golden(work, [two])[two]
        library.store.put_golden(work, [replace(of_two, **moved), replace(honest, prov=moved["prov"])])
    for person in (2, 3):
        with pytest.raises(CorruptError) as error:
            library.lookup(person)
        assert error.value.reason is Reason.ROW_FORGED
    assert library.shown(library.lookup(1).values[0])["full_name"] == "姓名1"
    assert len(library.entries) == 1
