"""Which entry of the log shows a violation, and whose it is."""

from datetime import date
from typing import Any

import pytest

from exchange.violations.codes import ViolationCode
from exchange.violations.model import Sign
from exchange.violations.signs import ACTIONS, REASONS, day_of, is_refused_call, occurrences_in
from schemas.access import Action
from schemas.errors import Reason

AT = 1_777_887_000_000_000  # 4 May 2026, 17:30 in Shanghai
MIDNIGHT = 1_777_910_400_000_000  # when the day ends there, 16:00 UTC


def entry(**changes: Any) -> dict[str, Any]:
    fitting: dict[str, Any] = {
        "id": "0198c0de-0000-7000-b000-000000000001",
        "at": AT,
        "action": "exchange:records:fetch",
        "decision": "deny",
        "reason": "purpose_mismatch",
        "resource": "population.v1",
        "grant": {"id": "g-1", "version": 3, "hash": "cc"},
        "actor": {"department": "d-1", "id": "sink"},
    }
    return {name: value for name, value in (fitting | changes).items() if value is not None}


def seen(**changes: Any) -> Any:
    found = occurrences_in(entry(**changes), {"population.v1": "d-9"}.get)
    assert len(found) <= 1
    return found[0] if found else None


@pytest.mark.parametrize(
    ("reason", "sign"),
    [
        ("purpose_missing", Sign.PURPOSE),
        ("purpose_mismatch", Sign.PURPOSE),
        ("case_missing", Sign.CASE),
        ("case_mismatch", Sign.CASE),
        ("grant_other_consumer", Sign.SCOPE),
    ],
)
@pytest.mark.parametrize("action", ["exchange:records:fetch", "exchange:records:commit"])
def test_a_refused_read_that_does_not_fit_its_grant_is_one_of_art_40_2(reason: str, sign: Sign, action: str) -> None:
    found = seen(reason=reason, action=action)
    assert (found.code, found.sign, found.respondent) == (ViolationCode.C2, sign, "d-1")
    assert (found.subject, found.day, found.entry, found.since) == ("g-1", date(2026, 5, 4), entry()["id"], AT)
    assert found.grant == ("" if sign is Sign.SCOPE else "g-1")
    assert is_refused_call(entry(reason=reason, action=action), sign)
    assert reason in REASONS


@pytest.mark.parametrize(
    "changes",
    [
        {"decision": "allow", "reason": None},
        *({"reason": reason} for reason in sorted(set(map(str, Reason)) - REASONS)),
        {"action": "exchange:grant:read"},  # a person who looks at another's grant draws nothing
        {"action": "exchange:records:publish"},
        {"actor": None},
        {"actor": {"department": "", "id": "root"}},
    ],
    ids=str,
)
def test_other_entries_show_none(changes: dict[str, Any]) -> None:
    assert seen(**changes) is None


def test_what_is_folded_over_several_resources_is_one_occurrence_of_the_department() -> None:
    found = seen(grant=None, resource="*", data={"folded": 40, "since": AT})
    assert (found.subject, found.grant, found.respondent) == ("*", "", "d-1")


def test_each_grant_of_calls_that_are_folded_into_one_entry_is_an_occurrence() -> None:
    folded = entry(grant=None, data={"folded": 4, "since": AT, "grants": ["g-2", "g-3"]})
    assert [(one.subject, one.grant) for one in occurrences_in(folded, {}.get)] == [("g-2", "g-2"), ("g-3", "g-3")]
    also = entry(data={"folded": 4, "since": AT, "grants": ["g-2"]})
    assert [one.subject for one in occurrences_in(also, {}.get)] == ["g-1", "g-2"]


def test_a_day_is_one_of_shanghai() -> None:
    assert day_of(MIDNIGHT - 1) == date(2026, 5, 4)
    assert day_of(MIDNIGHT) == date(2026, 5, 5)
    assert seen(at=MIDNIGHT - 1).key != seen(at=MIDNIGHT).key
    assert seen(at=AT).key == seen(at=MIDNIGHT - 1, id="another").key


def test_publication_against_a_lead_is_the_provider_s_repeated_collection() -> None:
    failed = {
        "action": str(Action.CATALOGUE_PUBLISH),
        "decision": "allow",
        "reason": None,
        "grant": None,
        "actor": {"department": "", "id": "root"},
        "data": {"failed": "element_has_lead"},
    }
    found = seen(**failed)
    assert (found.code, found.sign, found.respondent) == (ViolationCode.C1, Sign.REPEATED_COLLECTION, "d-9")
    assert (found.subject, found.grant) == ("population.v1", "")
    assert seen(**{**failed, "resource": "unknown.v1"}) is None
    assert seen(**{**failed, "data": {"failed": "element_contested"}}) is None
    assert seen(**{**failed, "data": None}) is None
    assert str(Action.CATALOGUE_PUBLISH) in ACTIONS


def test_a_request_for_correction_that_is_not_answered_in_time_is_its_source_s() -> None:
    overdue = {
        "action": str(Action.CORRECTION_OVERDUE),
        "decision": "allow",
        "reason": None,
        "grant": None,
        "actor": {"department": "", "id": "timer"},
        "data": {"ticket": "t-1", "source": "d-9", "due_at": "2026-05-04T00:00:00+08:00"},
    }
    found = seen(**overdue)
    assert (found.code, found.sign, found.respondent) == (ViolationCode.P6, Sign.OVERDUE_CORRECTION, "d-9")
    assert (found.subject, found.day) == ("t-1", date(2026, 5, 3)), "the last day in time"
    assert seen(**{**overdue, "at": MIDNIGHT}).key == found.key, "late is late once"
    assert seen(**{**overdue, "data": {**overdue["data"], "failed": "row_forged"}}) is None
    assert seen(**{**overdue, "data": None}) is None


@pytest.mark.parametrize(
    ("state", "sign"),
    [
        ("submitted", Sign.OVERDUE_REPLY),
        ("countersigned", Sign.OVERDUE_REPLY),
        ("in_dispute", Sign.OVERDUE_REPLY),
        ("approved", Sign.OVERDUE_DELIVERY),
    ],
)
def test_silence_is_the_provider_s_violation(state: str, sign: Sign) -> None:
    overdue = {
        "action": str(Action.REQUEST_OVERDUE),
        "decision": "allow",
        "reason": None,
        "grant": {"id": "g-1", "version": 1, "hash": "00"},
        "actor": {"department": "", "id": "timer"},
        "data": {"state": state, "violation": "Art. 39(4)"},
    }
    found = seen(**overdue)
    assert (found.code, found.sign, found.subject) == (ViolationCode.P4, sign, "g-1")
    assert found.grant == "", "an order suspends no grant of the consumer"
    assert seen(**{**overdue, "resource": "unknown.v1"}) is None
    assert seen(**{**overdue, "grant": None}) is None
    assert seen(**{**overdue, "data": {**overdue["data"], "failed": "row_forged"}}) is None
