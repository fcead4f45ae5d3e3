"""Facts (度量) that an entry of the log adds to the figures of departments, and events for supervision. Pure.

`LogFold` takes the entries of the log in order. What it must remember of earlier ones is small: whose a resource is,
the terms of a grant, and since when it is in force. A caller gives it what the entries at hand need (`names_in`), and
stores what has changed with the facts, so that a fold can go on at any entry.

    published         records of a batch, of the department that published
    drawn, provided   records of a release, of its consumer and of its provider
    filed, received   a share request, of its consumer and of its provider
    approved, refused decisions on it, of the provider; a refusal cites a clause or none
    replied, delivered    ends of a request's clocks: on time; or late, when one runs out, even where no act follows
    updated, reviewed     ends of the catalogue's clocks: on time or late
    overdue           what ran out of time, by the rule of the clock
    doubted, corrected    corrections of the department's values: asked for, answered on time or late
    violation         violations of the department that were confirmed, by code
    denied            times that an act was denied, by reason; out_of_scope and repeated are parts of these
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

from exchange.kpi.events import EventKind, SupervisionEvent
from schemas.access import Action, GrantState
from schemas.audit import Decision
from schemas.supervision.kpi import measures_of_reason

__all__ = ["Fact", "GrantTerms", "Known", "LogFold", "Span", "month_of", "names_in"]

_SHANGHAI: Final = timezone(timedelta(hours=8))
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_CATALOGUE: Final = {"catalogue.update": "updated", "catalogue.review": "reviewed"}
_OVERDUE: Final = frozenset({"exchange:request:overdue", "exchange:correction:overdue"})
_CORRECTIONS: Final = "exchange:correction:"
_VIOLATIONS: Final = "exchange:violation:"
_READS: Final = frozenset({"read", "reveal"})
_PROVIDES: Final = frozenset({Action.PUBLISH, Action.CATALOGUE_DRAFT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """What one entry adds to one measure.

    Attributes:
        position: index of the entry in the log.
        ordinal: of the fact among those of the entry.
        month: of the entry, YYYY-MM of UTC+8.
        department: whose figure it is of; empty for the pool's own.
        measure, detail: see the module.
        amount: records, or times.
        at: of the entry, microseconds UTC.
        grant: its id, if it has one.
        entry: its id.
    """

    position: int
    ordinal: int
    month: str
    department: str
    measure: str
    detail: str
    amount: int
    at: int
    grant: str
    entry: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantTerms:
    """What a grant's entries say of it."""

    consumer: str = ""
    provider: str = ""
    resource: str = ""
    fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A time in which a grant was in force.

    Attributes:
        grant: its id.
        position, entry: index and id of the entry since which it is.
        since, until: microseconds UTC; until is None while it is in force.
        terms: of the grant at its beginning.
    """

    grant: str
    position: int
    entry: str
    since: int
    until: int | None = None
    terms: GrantTerms


@dataclass(slots=True)
class Known:
    """What earlier entries said.

    Attributes:
        providers: the department of a resource.
        grants: terms by id.
        spans: those that are open, by grant.
    """

    providers: dict[str, str] = field(default_factory=dict)
    grants: dict[str, GrantTerms] = field(default_factory=dict)
    spans: dict[str, Span] = field(default_factory=dict)


def month_of(at: int) -> str:
    """Return the month of a time in microseconds UTC: YYYY-MM of UTC+8."""
    return (_EPOCH + timedelta(microseconds=at)).astimezone(_SHANGHAI).strftime("%Y-%m")


def names_in(entries: Iterable[Mapping[str, Any]]) -> tuple[set[str], set[str]]:
    """Return the ids of grants and the resources that entries are about."""
    grants: set[str] = set()
    resources: set[str] = set()
    for entry in entries:
        grants.add((entry.get("grant") or {}).get("id", ""))
        resources.add(entry.get("resource", ""))
    return grants - {""}, resources - {""}


def _of_request(rule: str) -> str:
    """Return the measure of the end of a request's clock; empty for other clocks."""
    return "replied" if rule.startswith("reply.") else "delivered" if rule == "delivery" else ""


class LogFold:
    """Folds entries into facts, events, and what is to be remembered.

    Args:
        known: what earlier entries said of the grants and resources of these.

    Attributes:
        facts, events: of the entries taken, in their order.
        known: as it is after them.
        changed_providers, changed_grants: names of those that are new or changed.
        spans: those that were opened or closed, by grant and position.
    """

    def __init__(self, known: Known) -> None:
        self.known = known
        self.facts: list[Fact] = []
        self.events: list[SupervisionEvent] = []
        self.changed_providers: set[str] = set()
        self.changed_grants: set[str] = set()
        self.spans: dict[tuple[str, int], Span] = {}

    def take(self, position: int, entry: Mapping[str, Any]) -> None:
        """Take an entry (`schemas.audit.read_leaf`) with its index; call it with rising indexes."""
        _EntryFold(self, position, entry).run()


class _EntryFold:
    """One entry on its way through the fold."""

    def __init__(self, fold: LogFold, position: int, entry: Mapping[str, Any]) -> None:
        self._fold = fold
        self._position = position
        self._entry = entry
        self._data: Mapping[str, Any] = entry.get("data") or {}
        self._action: str = entry["action"]
        self._resource: str = entry.get("resource", "")
        self._grant: str = (entry.get("grant") or {}).get("id", "")
        self._department: str = (entry.get("actor") or {}).get("department", "")
        self._at: int = entry["at"]
        self._facts = 0
        self._events = 0

    def run(self) -> None:
        if self._entry["decision"] == Decision.DENY:
            self._take_refusal(str(self._entry.get("reason", "")), denied=True)
        elif "failed" in self._data:
            self._take_refusal(str(self._data["failed"]), denied=False)
        else:
            self._take_allowed()

    def _take_refusal(self, reason: str, *, denied: bool) -> None:
        times = self._data.get("folded", 1)
        if denied:
            self._add("denied", self._department, times, reason)
        for measure in measures_of_reason(reason):
            self._add(measure, self._department, times, reason)
            self._tell(EventKind(measure), self._department, reason)

    def _take_allowed(self) -> None:
        if self._action in _PROVIDES and self._department and self._resource:
            self._set_provider()
        terms = self._terms()
        match self._action:
            case Action.PUBLISH:
                self._add("published", self._department, self._data.get("count", 0))
            case Action.FETCH:
                count = self._data.get("count", 0)
                self._add("drawn", self._department, count)
                self._add("provided", terms.provider, count)
            case Action.GRANT_SUBMIT:
                self._add("filed", terms.consumer)
                self._add("received", terms.provider)
            case _ if self._grant:
                self._take_decision(terms)
            case _ if self._action.startswith(_CORRECTIONS):
                self._take_correction()
            case _ if self._action.startswith(_VIOLATIONS):
                self._take_violation()
        self._take_clock(terms)
        self._take_state(terms)

    def _take_decision(self, terms: GrantTerms) -> None:
        events = self._data.get("events")
        # An act of before the stored requests names no events: its approval was the whole decision.
        approved = self._action == Action.GRANT_APPROVE if events is None else "conclude" in events
        if approved:
            self._add("approved", terms.provider)
        if self._action == Action.GRANT_REJECT:
            clause = str(self._data.get("clause") or "")
            self._add("refused", terms.provider, detail="clause" if clause else "no_clause")
            self._tell(EventKind.REFUSAL, terms.provider, str(self._data.get("ground") or ""), clause=clause)

    def _take_correction(self) -> None:
        act = self._action.removeprefix(_CORRECTIONS)
        source = str(self._data.get("source") or self._department)
        if act == "open":
            self._add("doubted", source)
        elif isinstance(self._data.get("late"), bool):
            self._add("corrected", self._department, detail="late" if self._data["late"] else "on_time")
        if act not in _READS and self._action not in _OVERDUE:
            self._tell(EventKind.CORRECTION, source, act, due=str(self._data.get("due_at") or ""))

    def _take_violation(self) -> None:
        act, code = self._action.removeprefix(_VIOLATIONS), str(self._data.get("code") or "")
        if act == "confirm":
            self._add("violation", self._resource, detail=code)
        if act not in _READS:
            self._tell(EventKind.VIOLATION, self._resource, f"{act} {code}".strip())

    def _take_clock(self, terms: GrantTerms) -> None:
        clock = self._data.get("clock")
        clock = clock if isinstance(clock, Mapping) else {}
        rule, due, late = str(clock.get("rule", "")), str(clock.get("due", "")), clock.get("late")
        # Who had to act: the provider of the resource; for a review it is the authority, which is no department.
        owner = "" if rule == "catalogue.review" else terms.provider
        if self._action in _OVERDUE:
            said = {
                "rule": rule or str(self._data.get("rule") or ""),
                "due": due or str(self._data.get("due_at") or ""),
            }
            owner = str(self._data.get("source") or owner)
            self._take_ran_out(owner, said["rule"])
            self._tell(EventKind.OVERDUE, owner, "", **said)
            return
        if not clock:
            return
        if self._data.get("violation"):  # the act came after its time, and before the timer said so
            self._take_ran_out(owner, rule)
        elif late is not None:
            self._take_end(owner, rule, late=bool(late))
        if late is None:
            self._tell(EventKind.CLOCK, owner, "", rule=rule, due=due)
        else:
            self._tell(EventKind.OVERDUE if late else EventKind.CLOCK, owner, "done", rule=rule, due=due)

    def _take_ran_out(self, owner: str, rule: str) -> None:
        """Count a clock that has run out; the act that it runs for may come later, or never."""
        self._add("overdue", owner, detail=rule)
        measure = _of_request(rule)
        if measure:
            self._add(measure, owner, detail="late")

    def _take_end(self, owner: str, rule: str, *, late: bool) -> None:
        """Count the end of a clock."""
        if rule in _CATALOGUE:
            self._add(_CATALOGUE[rule], owner, detail="late" if late else "on_time")
            if late:
                self._add("overdue", owner, detail=rule)
            return
        measure = _of_request(rule)
        # What is late was counted when its clock ran out. Entries of before the stored requests have no such record.
        if measure and not (late and "events" in self._data):
            self._add(measure, owner, detail="late" if late else "on_time")

    def _set_provider(self) -> None:
        known = self._fold.known.providers
        if known.get(self._resource) != self._department:
            known[self._resource] = self._department
            self._fold.changed_providers.add(self._resource)

    def _terms(self) -> GrantTerms:
        """Return the terms of the entry's grant, with what the entry says of them; of none, the resource's provider."""
        provider = self._fold.known.providers.get(self._resource, "")
        if not self._grant:
            return GrantTerms(provider=provider, resource=self._resource)
        before = self._fold.known.grants.get(self._grant)
        terms = before or GrantTerms(provider=provider, resource=self._resource)
        said: dict[str, Any] = {
            name: self._data[name] for name in ("consumer", "provider") if isinstance(self._data.get(name), str)
        }
        if self._action in {Action.GRANT_SUBMIT, Action.FETCH} and not terms.consumer:
            said.setdefault("consumer", self._department)
        if isinstance(self._data.get("fields"), list):
            said["fields"] = tuple(map(str, self._data["fields"]))
        terms = replace(terms, **said)
        if terms != before:
            self._fold.known.grants[self._grant] = terms
            self._fold.changed_grants.add(self._grant)
        return terms

    def _take_state(self, terms: GrantTerms) -> None:
        """Open or close the time in which the grant is in force."""
        if not self._grant or self._action == Action.FETCH:
            return
        state = "active" if self._action == Action.GRANT_PROVISION else self._data.get("state")
        if state is None:
            return
        spans = self._fold.known.spans
        span = spans.get(self._grant)
        if state == GrantState.ACTIVE and span is None:
            span = Span(
                grant=self._grant, position=self._position, entry=self._entry["id"], since=self._at, terms=terms
            )
            spans[self._grant] = span
        elif state != GrantState.ACTIVE and span is not None:
            span = replace(spans.pop(self._grant), until=self._at)
            self._tell(EventKind.GRANT_ENDED, terms.consumer, str(state))
        else:
            return
        self._fold.spans[span.grant, span.position] = span

    def _add(self, measure: str, department: str, amount: int = 1, detail: str = "") -> None:
        self._fold.facts.append(
            Fact(
                position=self._position,
                ordinal=self._facts,
                month=month_of(self._at),
                department=department,
                measure=measure,
                detail=detail,
                amount=amount,
                at=self._at,
                grant=self._grant,
                entry=self._entry["id"],
            )
        )
        self._facts += 1

    def _tell(
        self, kind: EventKind, department: str, detail: str, *, rule: str = "", due: str = "", clause: str = ""
    ) -> None:
        self._fold.events.append(
            SupervisionEvent(
                position=self._position,
                ordinal=self._events,
                at=self._at,
                kind=kind,
                department=department,
                action=self._action,
                resource=self._resource,
                grant=self._grant,
                detail=detail,
                rule=rule,
                due=due,
                clause=clause,
                times=self._data.get("folded", 1),
                entry=self._entry["id"],
            )
        )
        self._events += 1
