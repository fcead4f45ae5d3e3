"""Rights on subjects: denied is what nothing allows."""

import fnmatch
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.governance.subject_rights import OPERATIONS, Profile, Right, Rights, SubjectOperation, matches
from schemas.access import Action, Actor, ActorKind, Role
from schemas.errors import InvalidError, Reason

EDITOR = Actor(kind=ActorKind.HUMAN, id="li", department="d1", role=Role.CATALOGUE_EDITOR)
SINK = Actor(kind=ActorKind.MACHINE, id="li", department="d1", role=Role.CONNECTOR)
POOL = Actor(kind=ActorKind.HUMAN, id="zhao", department="", role=Role.AUDITOR)


def rights(who: str, operations: str = "read", subjects: str = "pop*") -> Rights:
    return Rights(profile=Profile.CLOSED, rights=(Right.parse(who, operations.split(), subjects.split()),))


def test_without_a_right_a_closed_registry_gives_nothing() -> None:
    none = Rights(profile=Profile.CLOSED)
    for operation in SubjectOperation:
        assert not none.allows(EDITOR, operation, "a")
        assert not none.profile_allows(operation, "a")


@pytest.mark.parametrize(
    ("who", "editor", "sink", "pool"),
    [
        ("*", True, True, True),
        ("account:li", True, False, False),
        ("connector:d1/li", False, True, False),
        ("connector:d2/li", False, False, False),
        ("department:d1", True, True, False),
        ("role:auditor", False, False, True),
    ],
)
def test_who_has_a_right(who: str, editor: bool, sink: bool, pool: bool) -> None:
    given_ = rights(who)
    assert [given_.allows(actor, SubjectOperation.READ, "population") for actor in (EDITOR, SINK, POOL)] == [
        editor,
        sink,
        pool,
    ]


def test_a_right_is_for_its_operations_and_subjects_alone() -> None:
    given_ = rights("account:li", "read register", "pop* :.d1:*")
    assert given_.allows(EDITOR, SubjectOperation.REGISTER, ":.d1:cards-value")
    assert not given_.allows(EDITOR, SubjectOperation.DELETE, "population")
    assert not given_.allows(EDITOR, SubjectOperation.READ, "tax")
    assert not given_.allows(EDITOR, SubjectOperation.READ, ""), "an act on all subjects needs the pattern *"
    assert rights("account:li", subjects="*").allows(EDITOR, SubjectOperation.READ, "")
    assert given_.allows_anywhere(EDITOR, SubjectOperation.READ)
    assert not given_.allows_anywhere(EDITOR, SubjectOperation.DELETE)
    assert not given_.allows_anywhere(SINK, SubjectOperation.READ)


def test_what_a_profile_opens_and_what_a_restriction_closes_again() -> None:
    opened = {
        profile: {operation for operation in SubjectOperation if Rights(profile=profile).profile_allows(operation, "a")}
        for profile in Profile
    }
    assert opened == {
        Profile.CLOSED: set(),
        Profile.IDS: {SubjectOperation.READ_BY_ID},
        Profile.CATALOGUE: {SubjectOperation.READ, SubjectOperation.READ_BY_ID},
    }
    closed = Rights(restricted=("health.*",))
    assert not closed.profile_allows(SubjectOperation.READ_BY_ID, "health.cards-value")
    assert closed.profile_allows(SubjectOperation.READ_BY_ID, "healthy-value")


def test_every_act_on_the_registry_but_a_decision_needs_an_operation() -> None:
    acts = {action for action in Action if re.match(r"registry:(schema|approval):", action)}
    assert acts - OPERATIONS.keys() == {Action.APPROVAL_DECIDE}


@pytest.mark.parametrize(
    ("who", "operations", "subjects"),
    [
        ("li", "read", "a"),
        ("role:boss", "read", "a"),
        ("account:", "read", "a"),
        ("connector:d1", "read", "a"),
        ("*", "write", "a"),
        ("*", "", "a"),
        ("*", "read", ""),
        ("*", "read", "x" * 501),
    ],
)
def test_a_right_that_says_nothing_is_refused(who: str, operations: str, subjects: str) -> None:
    with pytest.raises(InvalidError) as caught:
        Right.parse(who, operations.split(), subjects.split())
    assert caught.value.reason is Reason.CONFIG_INVALID


@given(pattern=st.text("ab*.", max_size=8), name=st.text("ab.", max_size=8))
def test_a_pattern_knows_the_star_and_nothing_else(pattern: str, name: str) -> None:
    wanted = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name) is not None
    assert matches(pattern, name) is wanted
    assert matches(pattern, name) is fnmatch.fnmatchcase(name, pattern)


def test_a_pattern_of_many_stars_does_not_run_for_long() -> None:
    assert not matches("a*" * 200 + "b", "a" * 5_000)
