"""Entries become facts and events: of whom, how often, and nothing of a person."""

import json
from dataclasses import asdict
from typing import Any

import pytest

from exchange.kpi.events import EventKind
from exchange.kpi.facts import Fact, GrantTerms, Known, LogFold, names_in
from schemas.access import Action
from schemas.audit import AuditEntry, Decision, GrantRef, read_leaf, to_leaf
from schemas.errors import Reason
from tests.kit.cases.audit import CONSUMER, PROVIDER, Entries
from tests.kit.cases.figures import actor

GRANT = GrantRef(id="g-1", version=1, hash="aa" * 32)
CLOCK = {"rule": "reply.conditional", "profile": "809", "profile_version": 1, "due": "2026-12-10T00:00:00+08:00"}


def folded(*entries: AuditEntry, known: Known | None = None) -> LogFold:
    fold = LogFold(known or Known())
    for position, entry in enumerate(entries):
        fold.take(position, read_leaf(to_leaf(entry)))
    return fold


def told(fold: LogFold) -> list[tuple[str, str, str, int]]:
    return [(one.department, one.measure, one.detail, one.amount) for one in fold.facts]


def of_grant(action: Action | str, department: str = PROVIDER, **data: Any) -> AuditEntry:
    return Entries().make(action, actor=actor(department), grant=GRANT, data=data)


def test_a_release_counts_for_the_provider_that_the_request_s_entry_names() -> None:
    submitted = of_grant(Action.GRANT_SUBMIT, CONSUMER, provider=PROVIDER)
    fold = folded(submitted, of_grant(Action.FETCH, CONSUMER, count=7))
    assert told(fold)[2:] == [(CONSUMER, "drawn", "", 7), (PROVIDER, "provided", "", 7)]
    assert fold.known.grants["g-1"] == GrantTerms(consumer=CONSUMER, provider=PROVIDER, resource="population.v1")


def test_a_release_of_a_grant_of_before_counts_for_who_published_the_resource() -> None:
    published = Entries().make(Action.PUBLISH, actor=actor(PROVIDER), data={"count": 3})
    fold = folded(published, of_grant(Action.FETCH, CONSUMER, count=2))
    assert told(fold) == [
        (PROVIDER, "published", "", 3), (CONSUMER, "drawn", "", 2), (PROVIDER, "provided", "", 2),
    ]  # fmt: skip
    assert fold.changed_providers == {"population.v1"}


@pytest.mark.parametrize(
    ("events", "approved"), [(None, 1), (["approve"], 0), (["approve", "conclude"], 1), (["conclude"], 1)]
)
def test_a_request_is_approved_once_all_have_signed(events: list[str] | None, approved: int) -> None:
    data = {} if events is None else {"events": events}
    known = Known(grants={"g-1": GrantTerms(consumer=CONSUMER, provider=PROVIDER)})
    fold = folded(of_grant(Action.GRANT_APPROVE, **data), known=known)
    assert told(fold) == [(PROVIDER, "approved", "", 1)] * approved


def test_a_refusal_is_told_with_its_clause_and_ground() -> None:
    known = Known(grants={"g-1": GrantTerms(consumer=CONSUMER, provider=PROVIDER)})
    with_clause = of_grant(Action.GRANT_REJECT, clause="809-21", ground="out_of_duty", state="rejected")
    fold = folded(with_clause, of_grant(Action.GRANT_REJECT, state="rejected"), known=known)
    assert told(fold) == [(PROVIDER, "refused", "clause", 1), (PROVIDER, "refused", "no_clause", 1)]
    assert [(one.kind, one.clause, one.detail) for one in fold.events] == [
        (EventKind.REFUSAL, "809-21", "out_of_duty"), (EventKind.REFUSAL, "", ""),
    ]  # fmt: skip


@pytest.mark.parametrize(("late", "detail"), [(False, "on_time"), (True, "late")])
def test_the_end_of_a_clock_is_on_time_or_late_by_what_its_entry_says(late: bool, detail: str) -> None:
    known = Known(grants={"g-1": GrantTerms(consumer=CONSUMER, provider=PROVIDER)})
    fold = folded(of_grant(Action.GRANT_REJECT, clock={**CLOCK, "late": late}), known=known)
    assert (PROVIDER, "replied", detail, 1) in told(fold)
    [_, event] = fold.events
    assert (event.kind, event.rule, event.due) == (
        EventKind.OVERDUE if late else EventKind.CLOCK, "reply.conditional", CLOCK["due"],
    )  # fmt: skip
    begun = folded(of_grant(Action.GRANT_SUBMIT, CONSUMER, provider=PROVIDER, clock=CLOCK))
    assert [one.kind for one in begun.events] == [EventKind.CLOCK]
    assert not [one for one in begun.facts if one.measure == "replied"]


def test_what_ran_out_of_time_is_overdue_once() -> None:
    known = Known(
        grants={"g-1": GrantTerms(consumer=CONSUMER, provider=PROVIDER)}, providers={"population.v1": PROVIDER}
    )
    fold = folded(
        of_grant("exchange:request:overdue", "", clock=CLOCK, events=["overdue"]),
        of_grant(Action.GRANT_APPROVE, clock={**CLOCK, "late": True}, events=["approve", "conclude"]),
        Entries().make(
            Action.CATALOGUE_SUBMIT, actor=actor(PROVIDER), data={"clock": {"rule": "catalogue.update", "late": True}}
        ),
        Entries().make(
            Action.CATALOGUE_PUBLISH, actor=actor(""), data={"clock": {"rule": "catalogue.review", "late": True}}
        ),
        known=known,
    )
    assert [one[0:3] for one in told(fold) if one[1] == "overdue"] == [
        (PROVIDER, "overdue", "reply.conditional"), (PROVIDER, "overdue", "catalogue.update"),
        ("", "overdue", "catalogue.review"),
    ]  # fmt: skip


RAN_OUT: dict[str, dict[str, Any]] = {
    "a reply that never comes": {"action": "exchange:request:overdue", "department": "", "events": ["overdue"]},
    "a late list of what is missing": {
        "action": "exchange:request:need_more", "events": ["need_more"], "violation": "Art. 39(4)",
    },
    "a late decision before the timer": {
        "action": Action.GRANT_APPROVE, "events": ["approve", "conclude"], "violation": "Art. 39(4)", "late": True,
    },
}  # fmt: skip


@pytest.mark.parametrize("rule", ["reply.conditional", "delivery"])
@pytest.mark.parametrize("case", list(RAN_OUT))
def test_a_clock_that_ran_out_is_late_once_whether_its_act_comes_later_or_never(case: str, rule: str) -> None:
    known = Known(grants={"g-1": GrantTerms(consumer=CONSUMER, provider=PROVIDER)})
    said = dict(RAN_OUT[case])
    clock = {**CLOCK, "rule": rule} | ({"late": said["late"]} if "late" in said else {})
    action, department = said.pop("action"), said.pop("department", PROVIDER)
    later = of_grant(Action.GRANT_APPROVE, clock={**CLOCK, "rule": rule, "late": True}, events=["conclude"])
    fold = folded(of_grant(action, department, clock=clock, **said), later, known=known)
    measure = "delivered" if rule == "delivery" else "replied"
    assert [one[1:3] for one in told(fold) if one[1] in {"overdue", measure}] == [
        ("overdue", rule), (measure, "late"),
    ]  # fmt: skip


def test_folded_denials_count_as_often_as_they_happened() -> None:
    denied = Entries().make(
        Action.FETCH, actor=actor(CONSUMER), decision=Decision.DENY, reason=Reason.PURPOSE_MISMATCH, data={"folded": 9}
    )
    fold = folded(denied)
    assert told(fold) == [
        (CONSUMER, "denied", "purpose_mismatch", 9), (CONSUMER, "out_of_scope", "purpose_mismatch", 9),
    ]  # fmt: skip
    assert [(one.kind, one.times) for one in fold.events] == [(EventKind.OUT_OF_SCOPE, 9)]
    failed = Entries().make(Action.CATALOGUE_PUBLISH, actor=actor(PROVIDER), data={"failed": "element_has_lead"})
    assert told(folded(failed)) == [(PROVIDER, "repeated", "element_has_lead", 1)]
    nobody = Entries().make(Action.FETCH, actor=None, decision=Decision.DENY, reason=Reason.NO_IDENTITY)
    assert told(folded(nobody)) == [("", "denied", "no_identity", 1)]


def test_a_grant_is_in_force_from_its_activation_to_what_ends_it_and_again_after_it_resumes() -> None:
    fold = folded(
        of_grant(Action.GRANT_PROVISION, fields=["a", "b"]),
        of_grant(Action.GRANT_REMIND, state="active"),
        of_grant(Action.GRANT_SUSPEND, state="suspended"),
        of_grant(Action.GRANT_RESUME, state="active"),
        of_grant(Action.GRANT_EXPIRE, state="expired"),
        of_grant(Action.GRANT_EXPIRE, state="expired"),
        known=Known(grants={"g-1": GrantTerms(consumer=CONSUMER, provider=PROVIDER)}),
    )
    assert [(one.position, one.until is not None, one.terms.fields) for one in fold.spans.values()] == [
        (0, True, ("a", "b")), (3, True, ("a", "b")),
    ]  # fmt: skip
    assert [one.detail for one in fold.events if one.kind is EventKind.GRANT_ENDED] == ["suspended", "expired"]
    assert fold.known.spans == {}


def test_corrections_and_violations_are_of_the_source_and_of_who_violated() -> None:
    make = Entries().make
    fold = folded(
        make(Action.CORRECTION_OPEN, actor=actor(CONSUMER), data={"source": PROVIDER, "due_at": "2026-12-10"}),
        make(Action.CORRECTION_CORRECT, actor=actor(PROVIDER), data={"late": False, "due_at": "2026-12-10"}),
        make("exchange:correction:overdue", actor=actor(""), data={"source": PROVIDER, "rule": "correction"}),
        make(Action.VIOLATION_DETECT, actor=actor(""), resource=PROVIDER, data={"code": "P4"}),
        make(Action.VIOLATION_CONFIRM, actor=actor(""), resource=PROVIDER, data={"code": "P4"}),
        make(Action.CORRECTION_READ, actor=actor(CONSUMER)),
        make(Action.VIOLATION_READ, actor=actor(CONSUMER)),
    )
    assert told(fold) == [
        (PROVIDER, "doubted", "", 1), (PROVIDER, "corrected", "on_time", 1), (PROVIDER, "overdue", "correction", 1),
        (PROVIDER, "violation", "P4", 1),
    ]  # fmt: skip
    assert [(str(one.kind), one.detail) for one in fold.events] == [
        ("correction", "open"), ("correction", "correct"), ("overdue", ""), ("violation", "detect P4"),
        ("violation", "confirm P4"),
    ]  # fmt: skip


def test_events_and_facts_name_no_account_and_no_case() -> None:
    denied = Entries().make(
        Action.FETCH, actor=actor(CONSUMER), case="2026-001", decision=Decision.DENY, reason=Reason.CASE_MISMATCH
    )
    fold = folded(denied)
    text = json.dumps([asdict(one) for one in (*fold.facts, *fold.events)])
    assert "somebody" not in text
    assert "2026-001" not in text
    assert names_in([read_leaf(to_leaf(of_grant(Action.FETCH, count=1)))]) == ({"g-1"}, {"population.v1"})
    assert all(isinstance(one, Fact) for one in fold.facts)
