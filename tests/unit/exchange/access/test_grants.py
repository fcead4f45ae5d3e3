"""The life of a request and the grant that it becomes, and its canonical document."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exchange.access.decision.grant_rules import GRANT_RULES, Event
from exchange.access.decision.purposes import SEED
from exchange.access.grants.grant_json import from_json, from_text, grant_hash, to_json, to_text
from exchange.access.grants.life_cycle import (
    TERMINAL,
    RequestTerms,
    advance,
    approve,
    conclude,
    confirm,
    provision,
    remind,
    resubmit,
    submit,
    supersede,
    suspend_unmasked,
)
from schemas.access import (
    AccessMode,
    Actor,
    ActorKind,
    AllOf,
    AnyOf,
    CaseRule,
    Compare,
    Exists,
    Grant,
    GrantState,
    History,
    Level,
    MaskRule,
    Member,
    Not,
    Prefix,
    Range,
    Role,
)
from schemas.errors import ConflictError, InvalidError, PoolError, Reason, RefusedError
from tests.kit.cases.grants import CONSUMER, NOW, PLAIN, PROVIDER, STRANGER, a_draft, a_grant, a_person, held

HEAD = a_person(Role.SHARING_OFFICE_HEAD, CONSUMER, "wang.hr")
OWNER = a_person(Role.SHARING_OFFICE_HEAD, PROVIDER, "li.ps")
OFFICER = a_person(Role.SECURITY_OFFICER, PROVIDER, "sun.ps")
AUTHORITY = a_person(Role.DATA_AUTHORITY, "", "chen.da")
TIMER = a_person(Role.OPERATOR, "", "pool", kind=ActorKind.MACHINE)
TERMS = RequestTerms(purposes={purpose.id for purpose in SEED}, level=Level.G4, masks=PLAIN, check_view=lambda _: None)


def requested(**changes: Any) -> Grant:
    return submit(a_draft(**changes), by=HEAD, at=NOW, terms=TERMS)


def active() -> Grant:
    return _provision(_approve(requested(), by=OWNER, at=NOW), by=OWNER, at=NOW, view_schema_id=17)


def _approve(grant: Grant, *, by: Actor, at: datetime) -> Grant:
    return approve(grant, by=by, at=at, holding=held(grant))


def _provision(grant: Grant, *, by: Actor, at: datetime, view_schema_id: int) -> Grant:
    return provision(grant, by=by, at=at, holding=held(grant), view_schema_id=view_schema_id)


def _resume(grant: Grant, *, by: Actor) -> Grant:
    return advance(grant, Event.RECTIFIED, by=by, at=NOW, reason="mended", holding=held(grant))


# the life


def test_a_request_becomes_an_active_grant_by_two_persons_of_two_departments() -> None:
    request = requested()
    assert (request.version, request.state, request.approved_by) == (1, GrantState.SUBMITTED, None)
    agreed = _approve(request, by=OWNER, at=NOW)
    assert (agreed.version, agreed.state, agreed.approved_by, agreed.approved_at) == (
        2, GrantState.APPROVED, "li.ps", NOW,
    )  # fmt: skip
    grant = _provision(agreed, by=OWNER, at=NOW, view_schema_id=17)
    assert (grant.version, grant.state, grant.view_schema_id) == (3, GrantState.ACTIVE, 17)
    same = {f.name for f in fields(Grant)} - {"version", "state", "approved_by", "approved_at", "view_schema_id"}
    assert all(getattr(grant, name) == getattr(request, name) for name in same)


def test_every_state_can_be_reached_and_every_life_can_end() -> None:
    reached = {GrantState.DRAFT}
    for _ in GrantState:
        reached |= {rule.target for rule in GRANT_RULES.values() if rule.sources & reached}
    assert reached == set(GrantState)
    ends = set(TERMINAL)
    for _ in GrantState:
        ends |= {state for rule in GRANT_RULES.values() if rule.target in ends for state in rule.sources}
    assert ends == set(GrantState)
    assert set(GRANT_RULES) == set(Event)


@pytest.mark.parametrize("state", sorted(GrantState))
@pytest.mark.parametrize("event", sorted(Event))
def test_an_event_that_the_table_does_not_offer_is_a_conflict(state: GrantState, event: Event) -> None:
    if state in GRANT_RULES[event].sources or (event is Event.CONFIRM and state is GrantState.COUNTERSIGNED):
        return
    grant = a_grant(state=state)
    calls: dict[Event, Callable[[], Grant]] = {
        Event.SUBMIT: lambda: submit(replace(grant, requested_by=HEAD.id), by=HEAD, at=NOW, terms=TERMS),
        Event.APPROVE: lambda: _approve(grant, by=OWNER, at=NOW),
        Event.PROVISION: lambda: _provision(grant, by=OWNER, at=NOW, view_schema_id=1),
        Event.CONFIRM: lambda: confirm(grant, by=OFFICER, at=NOW, holding=held(grant)),
        Event.CONCLUDE: lambda: conclude(grant, by=OWNER, at=NOW, holding=held(grant)),
        Event.RESUBMIT: lambda: resubmit(grant, grant, by=HEAD, at=NOW, terms=TERMS),
        Event.REMIND: lambda: remind(grant, by=TIMER, at=NOW, suspend_after=NOW),
        Event.SUSPEND_UNMASKED: lambda: suspend_unmasked(replace(grant, suspend_after=NOW), by=TIMER, at=NOW),
        Event.SUPERSEDE: lambda: supersede(grant, by=OWNER, at=NOW),
    }
    with pytest.raises(ConflictError) as error:
        calls.get(event, lambda: advance(grant, event, by=AUTHORITY, at=NOW, reason="because"))()
    assert error.value.reason is Reason.TRANSITION_NOT_ALLOWED


def test_a_conflict_names_what_is_possible() -> None:
    with pytest.raises(
        ConflictError, match=r"got expire for a grant that is submitted; possible now: approve, confirm, dispute, "
    ):
        advance(requested(), Event.EXPIRE, by=TIMER, at=NOW)
    with pytest.raises(ConflictError, match="possible now: nothing"):
        advance(a_grant(state=GrantState.WITHDRAWN), Event.EXPIRE, by=TIMER, at=NOW)


@pytest.mark.parametrize("event", [Event.SUBMIT, Event.APPROVE, Event.PROVISION])
def test_no_detour_leads_around_the_checks_of_approval(event: Event) -> None:
    state = {Event.SUBMIT: GrantState.DRAFT, Event.APPROVE: GrantState.SUBMITTED, Event.PROVISION: GrantState.APPROVED}
    with pytest.raises(ConflictError):
        advance(a_grant(state=state[event]), event, by=OWNER, at=NOW, reason="because")


def test_a_grant_is_suspended_rectified_and_terminated_by_provider_or_authority() -> None:
    for overseer in (OWNER, AUTHORITY):
        grant = advance(active(), Event.SUSPEND, by=overseer, at=NOW, reason="used for another purpose")
        assert grant.state is GrantState.SUSPENDED
        assert _resume(grant, by=overseer).state is GrantState.ACTIVE
        assert advance(grant, Event.TERMINATE, by=overseer, at=NOW, reason="not mended").state is GrantState.TERMINATED
    for stranger in (HEAD, a_person(Role.SHARING_OFFICE_HEAD, STRANGER), a_person(Role.SHARING_OFFICE_HEAD, "")):
        with pytest.raises(RefusedError):
            advance(active(), Event.SUSPEND, by=stranger, at=NOW, reason="because")


def test_an_event_that_takes_away_says_why() -> None:
    for state, event in (
        (GrantState.SUBMITTED, Event.REJECT),
        (GrantState.ACTIVE, Event.SUSPEND),
        (GrantState.SUSPENDED, Event.TERMINATE),
    ):
        with pytest.raises(InvalidError, match="say why"):
            advance(a_grant(state=state), event, by=OWNER, at=NOW, reason="  ")
    assert advance(requested(), Event.REJECT, by=OWNER, at=NOW, reason="out of duty").state is GrantState.REJECTED


def test_a_grant_expires_at_its_time_and_not_before() -> None:
    grant = active()
    with pytest.raises(ConflictError):
        advance(grant, Event.EXPIRE, by=TIMER, at=grant.expires - timedelta(microseconds=1))
    assert advance(grant, Event.EXPIRE, by=TIMER, at=grant.expires).state is GrantState.EXPIRED
    with pytest.raises(RefusedError):
        advance(grant, Event.EXPIRE, by=HEAD, at=grant.expires)


def test_nothing_is_approved_by_silence_by_programs_or_after_its_time() -> None:
    request = requested()
    for by in (TIMER, replace(OWNER, kind=ActorKind.MACHINE), AUTHORITY, HEAD):
        with pytest.raises(RefusedError):
            _approve(request, by=by, at=NOW)
    with pytest.raises(ConflictError):
        _approve(request, by=OWNER, at=request.expires)
    for event in set(Event) - {Event.OVERDUE}:
        with pytest.raises(PoolError):
            advance(request, event, by=TIMER, at=request.expires, reason="late")
    assert advance(request, Event.OVERDUE, by=TIMER, at=request.expires).state is GrantState.SUBMITTED


def test_who_requested_decides_nothing_even_from_the_provider_s_office() -> None:
    moved = replace(OWNER, id=HEAD.id)
    request = requested()
    for act in (
        lambda: _approve(request, by=moved, at=NOW),
        lambda: _provision(replace(request, state=GrantState.APPROVED), by=moved, at=NOW, view_schema_id=1),
        lambda: advance(request, Event.REJECT, by=moved, at=NOW, reason="because"),
        lambda: _resume(a_grant(state=GrantState.SUSPENDED), by=moved),
    ):
        with pytest.raises(RefusedError) as error:
            act()
        assert error.value.reason is Reason.SAME_PERSON


# submission


LOOKUP: dict[str, Any] = {"access_mode": AccessMode.LOOKUP, "batch_max": 1}
VERIFY: dict[str, Any] = {"access_mode": AccessMode.VERIFY, "batch_max": 1, "predicates": ("alive/1",)}


def test_a_request_names_its_access_mode_and_what_depends_on_it() -> None:
    assert requested(**LOOKUP, provenance=True, as_of=True).provenance
    assert requested(**VERIFY | {"batch_max": 1_000}, as_of=True).predicates == ("alive/1",)
    assert requested(access_mode=AccessMode.LIST, predicates=("alive/1",)).access_mode is AccessMode.LIST
    assert requested(places=True, disclosure_reason="汇聚").places


def test_a_request_with_places_is_signed_by_two_persons_of_the_provider() -> None:
    request = requested(places=True, disclosure_reason="汇聚")
    with pytest.raises(RefusedError) as error:
        _approve(request, by=OWNER, at=NOW)
    assert error.value.reason is Reason.CONFIRMATION_MISSING


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"fields": ()}, "at least one field"),
        ({"fields": ("id_number", "id_number")}, "each field once"),
        ({"masks": (("ethnicity_code", MaskRule.DROP),)}, "masks for requested fields"),
        ({"masks": (("id_number", MaskRule.DROP), ("id_number", MaskRule.NONE))}, "one mask a field"),
        ({"masks": (("id_number", "rot13"),)}, "closed list"),
        ({"fields": ("a",), "masks": (("a", MaskRule.DROP),)}, "not dropped"),
        ({"purpose": "curiosity"}, "a purpose of the pool's list"),
        ({"legal_basis": "  "}, "a legal basis"),
        ({"case": ""}, "a standing case number"),
        ({"case_rule": CaseRule.EACH_CALL}, "no case number"),
        ({"expires": NOW}, "a beginning before the end"),
        ({"not_before": NOW - timedelta(days=9), "expires": NOW}, "an end in the future"),
        ({"expires": NOW.replace(year=2027) + timedelta(microseconds=1)}, "12 months"),
        ({"quota_per_day": 0}, "a daily quota"),
        ({"access_mode": "copy"}, "an access mode"),
        (VERIFY | {"predicates": ()}, "predicates, for the access mode verify"),
        ({"access_mode": AccessMode.LIST}, "predicates, for the access mode list"),
        (LOOKUP | {"predicates": ("alive/1",)}, "predicates for the access modes verify and list alone"),
        (VERIFY | {"predicates": ("alive/1", "alive/1")}, "each predicate once"),
        (VERIFY | {"predicates": ("birth_date < 1946",)}, "predicates as `id/version`"),
        (LOOKUP | {"batch_max": 0}, "1 to 1,000 subjects"),
        (LOOKUP | {"batch_max": 1_001}, "1 to 1,000 subjects"),
        ({"batch_max": 1}, "batch_max for the access modes"),
        (VERIFY | {"provenance": True}, "provenance for the access mode lookup"),
        ({"as_of": True}, "as_of for the access modes"),
        (LOOKUP | {"places": True, "disclosure_reason": "汇聚"}, "places for the access mode stream"),
        ({"places": True}, "a disclosure_reason with places"),
        ({"zone": ""}, "a network zone"),
        ({"provider": CONSUMER}, "a provider"),
        ({"provider": ""}, "a provider"),
        ({"requested_by": "somebody.else"}, "requested_by"),
        ({"approved_by": "li.ps"}, "neither approval"),
        ({"view_schema_id": 4}, "neither approval"),
        ({"id": ""}, "the id"),
        ({"not_before": datetime(2026, 5, 4)}, "aware"),  # noqa: DTZ001 - that is the point
        ({"expires": datetime(2026, 9, 4)}, "aware"),  # noqa: DTZ001
    ],
)
def test_a_request_that_breaks_a_rule_is_told_what_was_expected(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(InvalidError, match=expected) as error:
        requested(**changes)
    assert error.value.reason is Reason.REQUEST_INVALID


def test_twelve_months_are_the_longest() -> None:
    assert requested(expires=NOW.replace(year=2027)).state is GrantState.SUBMITTED
    leap = datetime(2028, 2, 29, tzinfo=UTC)
    assert requested(not_before=leap, expires=datetime(2029, 3, 1, tzinfo=UTC)).state is GrantState.SUBMITTED


def test_one_record_a_day_is_a_quota_and_so_is_none() -> None:
    assert requested(quota_per_day=1).quota_per_day == 1
    assert requested(quota_per_day=None).quota_per_day is None


def test_a_field_above_the_ceiling_is_refused() -> None:
    with pytest.raises(RefusedError) as error:
        requested(ceiling=Level.G3)
    assert error.value.reason is Reason.LEVEL_ABOVE_CEILING


def test_the_view_has_its_say_on_fields_masks_and_filter() -> None:
    def refuse(grant: Grant) -> None:
        raise InvalidError(Reason.FILTER_INVALID, f"{grant.row_filter} does not suit")

    with pytest.raises(InvalidError) as error:
        submit(a_draft(), by=HEAD, at=NOW, terms=replace(TERMS, check_view=refuse))
    assert error.value.reason is Reason.FILTER_INVALID


def test_only_the_consumer_s_people_submit() -> None:
    for by in (OWNER, replace(HEAD, kind=ActorKind.MACHINE), replace(HEAD, department="")):
        with pytest.raises(RefusedError):
            submit(a_draft(requested_by=by.id), by=by, at=NOW, terms=TERMS)


# the document

literals = st.text(st.characters(codec="utf-8"), max_size=8) | st.integers(-(2**53) + 1, 2**53 - 1) | st.booleans()
names = st.sampled_from(["ward", "born", "residence_division_code"])
leaves = (
    st.builds(Compare, st.sampled_from(["eq", "ne"]), names, literals)
    | st.builds(Member, names, st.lists(literals, min_size=1, max_size=4).map(tuple))
    | st.builds(Range, names, literals, st.none() | literals)
    | st.builds(Prefix, names, st.text("0123456789", min_size=1, max_size=6))
    | st.builds(Exists, names)
)
filters = st.recursive(
    leaves,
    lambda inner: (
        st.builds(AllOf, st.lists(inner, min_size=1, max_size=3).map(tuple))
        | st.builds(AnyOf, st.lists(inner, min_size=1, max_size=3).map(tuple))
        | st.builds(Not, inner)
    ),
    max_leaves=8,
)
text = st.text(st.characters(codec="utf-8"), max_size=20)
moments = st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=8))]), min_value=datetime(1970, 1, 1))  # noqa: DTZ001 - the zone is added
documents = st.builds(
    a_grant,
    version=st.integers(1, 2**31),
    fields=st.lists(text, unique=True, max_size=4).map(tuple),
    masks=st.dictionaries(text, st.sampled_from(list(MaskRule)), max_size=4).map(lambda d: tuple(sorted(d.items()))),
    row_filter=st.none() | filters,
    purpose=text,
    legal_basis=text,
    case_rule=st.sampled_from(list(CaseRule)),
    case=text,
    not_before=moments,
    expires=moments,
    history=st.sampled_from(list(History)),
    quota_per_day=st.none() | st.integers(1, 2**53 - 1),
    ceiling=st.sampled_from(list(Level)),
    withdrawals=st.booleans(),
    approved_by=st.none() | text,
    approved_at=st.none() | moments,
    view_schema_id=st.none() | st.integers(0, 2**31),
    state=st.sampled_from(list(GrantState)),
    unmasked=st.lists(text, unique=True, max_size=3).map(tuple),
    unmasked_reason=text,
    filter_discloses=st.lists(text, unique=True, max_size=3).map(tuple),
    disclosure_reason=text,
    confirmed_by=st.none() | text.filter(bool),
    together_with=st.lists(text, unique=True, max_size=3).map(tuple),
    access_mode=st.sampled_from(list(AccessMode)),
    predicates=st.lists(text, unique=True, max_size=3).map(tuple),
    batch_max=st.integers(0, 1_000),
    provenance=st.booleans(),
    as_of=st.booleans(),
    places=st.booleans(),
    suspend_after=st.none() | moments,
)


@given(documents)
def test_a_grant_survives_its_document(grant: Grant) -> None:
    assert from_text(to_text(grant)) == grant
    assert to_text(from_text(to_text(grant))) == to_text(grant)
    assert grant_hash(grant) == hashlib.sha256(to_text(grant).encode()).digest()


@given(documents, documents)
def test_two_grants_have_one_hash_only_if_they_are_one(one: Grant, other: Grant) -> None:
    # By what they print: to Python a filter for 0 equals one for false, which are two filters.
    assert (grant_hash(one) == grant_hash(other)) is (repr(one) == repr(other))


def test_every_field_of_a_grant_is_in_its_hash() -> None:
    grant = a_grant()
    later = {
        "unmasked", "unmasked_reason", "filter_discloses", "disclosure_reason", "confirmed_by", "together_with",
        "suspend_after", "source_zone", "zone_reason", "duty", "renews", "first", "stream", "since", "carried_on",
        "carried", "access_mode", "predicates", "batch_max", "provenance", "as_of", "places",
    }  # fmt: skip
    assert set(to_json(grant)) == {"form"} | {field.name for field in fields(Grant)} - later
    changed: dict[str, Any] = {"topic": replace(grant.topic, major=2), "ceiling": Level.G1, "row_filter": None}
    changed |= {"fields": ("id_number",), "masks": (), "case_rule": CaseRule.EACH_CALL, "history": History.ALL}
    changed |= {"not_before": NOW, "expires": NOW, "approved_at": NOW, "withdrawals": False}
    changed |= dict.fromkeys(("unmasked", "filter_discloses", "together_with"), ("another",)) | {"suspend_after": NOW}
    changed |= {"since": NOW, "carried": 9, "access_mode": AccessMode.VERIFY, "predicates": ("alive/1",)}
    changed |= {"batch_max": 9, "provenance": True, "as_of": True, "places": True}
    changed |= {"version": 9, "quota_per_day": 9, "view_schema_id": 9, "state": GrantState.EXPIRED}
    for field in fields(Grant):
        other = replace(grant, **{field.name: changed.get(field.name, "another")})
        assert grant_hash(other) != grant_hash(grant), field.name


def test_the_same_moment_in_another_time_zone_is_the_same_grant() -> None:
    shanghai = a_grant(expires=a_grant().expires.astimezone(timezone(timedelta(hours=8))))
    assert grant_hash(shanghai) == grant_hash(a_grant())


def test_a_hash_never_changes_its_meaning() -> None:
    assert grant_hash(a_grant()).hex() == "e03dfe46e0d2ec74d84175833723433c4763859e5ede6322758af9bda3d582f4"


@pytest.mark.parametrize(
    "change",
    [
        {"state": "approvedd"},
        {"masks": {"id_number": "rot13"}},
        {"masks": [["id_number", "none"]]},
        {"version": "3"},
        {"version": True},
        {"withdrawals": 1},
        {"quota_per_day": 2.5},
        {"expires": "2027-02-28T09:30:00.000000"},
        {"expires": "2027-02-28T09:30:00.000000+00:00"},
        {"expires": "2027-02-28T09:30:00Z"},
        {"expires": "tomorrow"},
        {"topic": "Population"},
        {"fields": ["id_number", 7]},
        {"ceiling": 4},
        {"ceiling": "G9"},
        {"row_filter": {"op": "eval", "field": "x"}},
        {"form": "grant/2"},
        {"extra": None},
        {"unmasked": []},
        {"unmasked": "id_number"},
        {"unmasked": [7]},
        {"filter_discloses": {"id_number": 1}},
        {"unmasked_reason": ""},
        {"confirmed_by": None},
        {"suspend_after": "tomorrow"},
    ],
)
def test_what_is_not_a_grant_is_refused(change: dict[str, Any]) -> None:
    value: Any = {**to_json(a_grant()), **change}
    with pytest.raises(InvalidError) as error:
        from_json(value)
    assert error.value.reason is Reason.REQUEST_INVALID


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"grant"', "{}"])
def test_text_that_is_not_a_grant_is_refused(text: str) -> None:
    with pytest.raises(InvalidError):
        from_text(text)


def test_a_missing_member_is_refused() -> None:
    whole = json.loads(to_text(a_grant()))
    for member in whole:
        with pytest.raises(InvalidError):
            from_json({name: value for name, value in whole.items() if name != member})


def test_the_purposes_are_a_tree_and_name_terms_of_dpv() -> None:
    seen: set[str] = set()
    for purpose in SEED:
        assert purpose.parent is None or purpose.parent in seen
        assert purpose.dpv.startswith("https://w3id.org/dpv#")
        assert purpose.zh
        assert purpose.en
        seen.add(purpose.id)
    assert len(seen) == len(SEED) >= 15
