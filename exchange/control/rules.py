"""Rule service: calendars and rule profiles, proposed by one person of the data authority, confirmed by another.

    propose_calendar   the arrangement of a year, from the CSV of its notice
    propose_profile    a rule profile, from its YAML
    propose_order      which profiles are followed, the first with the highest precedence
    confirm, reject    by another person; its proposer may withdraw (reject) it
    rules, changes     every account reads what is in force, and what was proposed

What is proposed is checked whole, and again when it is confirmed, with what is in force by then. The entry of a
confirmation holds what it changes: the days of a year, the limits of a profile; so that the log alone says by which
rules a deadline was computed. Deadlines follow with the next reading.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from exchange.access.decision.roles import decide_control
from exchange.authorization.attributes import AttributeProvider
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.deadlines.calendar import ArrangedYear
from exchange.deadlines.calendar_csv import parse_year, write_days
from exchange.deadlines.changes import MAX_OPEN, ChangeState, RuleChange, RuleChangeStore, RuleKind
from exchange.deadlines.clock import Clock, Due, DueState
from exchange.deadlines.in_force import RulesInForce
from exchange.deadlines.profile import RuleBook, RuleId, RuleProfile, Ruling
from exchange.deadlines.profile_yaml import parse_profile
from exchange.deadlines.stored_rules import profiles_of, rules_of
from registry.database.damaged_row import DamagedRow
from registry.database.keyset import MAX_PAGE
from registry.database.unit_of_work import Database, Reader, UnitOfWork
from registry.governance.two_persons import refuse_second_signature
from schemas.access import Action, Actor, Allow, Deny
from schemas.canonical import Json
from schemas.errors import ConflictError, InvalidError, Reason

__all__ = ["ComputedDeadline", "ProfileInUse", "RuleService"]

_YEARS = range(2000, 2200)
_MOST_REASON = 2_000

ProfileInUse = tuple[RuleProfile, int | None, bool]
"""A profile; its place in the order from 1, None where it is not followed; whether it came with the program."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputedDeadline:
    """A deadline that was asked for.

    Attributes:
        ruling: the rule.
        clock: it, from the event.
        due: until when; state: how near that is now.
        calendar: version of the calendar.
    """

    ruling: Ruling
    clock: Clock
    due: Due
    state: DueState
    calendar: str


class RuleService:
    """Audited acts on the rules of deadlines."""

    def __init__(
        self,
        *,
        database: Database,
        enforcer: Enforcer,
        attributes: AttributeProvider,
        store: RuleChangeStore,
        now: Callable[[], datetime],
        new_id: Callable[[], str],
    ) -> None:
        self._database = database
        self._enforcer = enforcer
        self._attributes = attributes
        self._store = store
        self._now = now
        self._new_id = new_id

    def propose_calendar(self, actor: Actor, call: RequestContext, year: int, text: str) -> RuleChange:
        """Propose the arrangement of a year; it replaces that year as a whole.

        Args:
            actor: the proposer.
            call: its context.
            year: which one.
            text: CSV, `date,is_workday,notice`: the days that the notice names.

        Raises:
            RefusedError: the actor may not.
            InvalidError: CONFIG_INVALID, with each fault by line and column; a holiday of the law is missing;
                REQUEST_INVALID, a year that no calendar is of.
            ConflictError: ALREADY_EXISTS, it is proposed already; TRANSITION_NOT_ALLOWED, too many proposals wait.
        """

        def parsed() -> tuple[str, str]:
            if year not in _YEARS:
                raise InvalidError(
                    Reason.REQUEST_INVALID,
                    f"got the year {year}; expected one from {_YEARS.start} to {_YEARS.stop - 1}",
                )
            return str(year), write_days(parse_year(text, year, name=f"calendar {year}").days)

        return self._propose(actor, call, RuleKind.CALENDAR, parsed)

    def propose_profile(self, actor: Actor, call: RequestContext, text: str) -> RuleChange:
        """Propose a rule profile, from its YAML, in the place of the one of its name; a new one is followed by order.

        Raises:
            RefusedError: the actor may not.
            InvalidError: CONFIG_INVALID, with each fault by line and column.
            ConflictError: VERSION_CONFLICT, its version is not above that of the profile of its name; ALREADY_EXISTS,
                TRANSITION_NOT_ALLOWED as `propose_calendar`.
        """
        return self._propose(actor, call, RuleKind.PROFILE, lambda: (parse_profile(text, name="profile").profile, text))

    def propose_order(self, actor: Actor, call: RequestContext, profiles: Sequence[str]) -> RuleChange:
        """Propose which profiles are followed, the first with the highest precedence.

        Raises:
            RefusedError: the actor may not.
            InvalidError: NOT_FOUND, no such profile; REQUEST_INVALID, none, or one twice.
            ConflictError: ALREADY_EXISTS, TRANSITION_NOT_ALLOWED as `propose_calendar`.
        """

        def parsed() -> tuple[str, str]:
            names = list(profiles)
            if not names or len(set(names)) != len(names) or any(name.split() != [name] for name in names):
                raise InvalidError(
                    Reason.REQUEST_INVALID, "got no profile, or one twice; expected the names of profiles, each once"
                )
            return "", "".join(f"{name}\n" for name in names)

        return self._propose(actor, call, RuleKind.ORDER, parsed)

    def confirm(self, actor: Actor, call: RequestContext, change_id: str, kind: RuleKind) -> RuleChange:
        """Confirm what another person proposed; it is in force when this returns.

        Raises:
            RefusedError: the actor may not; SAME_PERSON, PERSON_UNKNOWN.
            InvalidError: NOT_FOUND, no such change of this kind; what the check of its content raises.
            ConflictError: TRANSITION_NOT_ALLOWED, it is decided; VERSION_CONFLICT.
            CorruptError: ROW_FORGED.
        """
        with self._database.read() as reader:
            change = self._get(reader, change_id, kind)
        decision = self._decide(actor, Action.RULES_CONFIRM)
        if isinstance(decision, Allow):
            persons = self._attributes.persons(change.proposed_by, actor.id)
            refusal = refuse_second_signature(change.proposed_by, actor.id, persons)
            decision = decision if refusal is None else refusal  # a denial is falsy: no `or` here
        with self._enforcer.act(actor, Action.RULES_CONFIRM, _resource(change), call, decision) as (work, act):
            decided = change.decide(confirmed=True, by=actor.id, at=self._now())
            told = self._check(decided, self._store.in_force(work))
            self._store.decide(work, decided)
            act.note(change=change.id, digest=change.digest, proposed_by=change.proposed_by, **told)
        return decided

    def reject(self, actor: Actor, call: RequestContext, change_id: str, kind: RuleKind, reason: str) -> RuleChange:
        """Reject a proposed change, or withdraw one's own.

        Raises:
            RefusedError: the actor may not.
            InvalidError: NOT_FOUND, no such change of this kind; REQUEST_INVALID, without a reason.
            ConflictError: TRANSITION_NOT_ALLOWED, it is decided.
            CorruptError: ROW_FORGED.
        """
        if not reason.strip() or len(reason) > _MOST_REASON:
            raise InvalidError(
                Reason.REQUEST_INVALID, f"got no reason, or one of more than {_MOST_REASON} characters; say why"
            )
        with self._database.read() as reader:
            change = self._get(reader, change_id, kind)
        decision = self._decide(actor, Action.RULES_REJECT)
        with self._enforcer.act(actor, Action.RULES_REJECT, _resource(change), call, decision) as (work, act):
            decided = change.decide(confirmed=False, by=actor.id, at=self._now(), reason=reason.strip())
            self._store.decide(work, decided)
            act.note(change=change.id, digest=change.digest, proposed_by=change.proposed_by, reason=reason.strip())
        return decided

    def rules(self, actor: Actor, call: RequestContext) -> RulesInForce:
        """Return the rules in force; every account may read them.

        Raises:
            RefusedError: the actor may not.
            CorruptError: ROW_FORGED.
        """
        self._admit_read(actor, call)
        with self._database.read() as reader:
            return self._attributes.rules(reader)

    def profiles(self, actor: Actor, call: RequestContext) -> list[ProfileInUse]:
        """Return every profile that can be followed, those that are followed first.

        Raises:
            RefusedError: the actor may not.
            CorruptError: ROW_FORGED.
        """
        self._admit_read(actor, call)
        with self._database.read() as reader:
            changes = self._store.in_force(reader)
        places = {one.profile: place for place, one in enumerate(rules_of(changes).book.profiles, 1)}
        own = {one.subject for one in changes if one.kind is RuleKind.PROFILE}
        found = [(one, places.get(name), name not in own) for name, one in profiles_of(changes).items()]
        return sorted(found, key=lambda one: (one[1] or len(found) + 1, one[0].profile))

    def deadline(
        self,
        actor: Actor,
        call: RequestContext,
        rule_id: RuleId,
        *,
        start: datetime | None = None,
        extension: int = 0,
        profile: str = "",
    ) -> ComputedDeadline:
        """Compute a deadline; nothing is stored.

        Args:
            actor: who asks.
            call: its context.
            rule_id: by which rule.
            start: the event, aware; None = now.
            extension: that was granted, in the unit of the limit.
            profile: by this one alone, whether it is followed or not; empty = by the rules in force.

        Raises:
            RefusedError: the actor may not.
            InvalidError: NOT_FOUND, no such profile; REQUEST_INVALID, more extension than the rule allows, or a date
                beyond those that can be computed.
            ConflictError: TRANSITION_NOT_ALLOWED, no profile has the rule, or it knows no extension.
            CorruptError: ROW_FORGED.
        """
        self._admit_read(actor, call)
        with self._database.read() as reader:
            now, rules = self._attributes.now(reader), self._attributes.rules(reader)
            if profile:
                known = profiles_of(self._store.in_force(reader))
                if profile not in known:
                    raise InvalidError(
                        Reason.NOT_FOUND, f"there is no profile {profile[:64]!r}; expected one of {', '.join(known)}"
                    )
                rules = replace(rules, book=RuleBook([known[profile]]))
        ruling = rules.rule(rule_id)
        clock = ruling.clock(start or now)
        if clock.started_at.year not in _YEARS:
            raise InvalidError(
                Reason.REQUEST_INVALID,
                f"got a start in {clock.started_at.year}; expected one from {_YEARS.start} to {_YEARS.stop - 1}",
            )
        if extension:
            clock = ruling.extended(clock, extension, at=clock.started_at, calendar=rules.calendar)
        due = clock.due(rules.calendar)
        assert due is not None  # noqa: S101 - only a clock that stands still has none
        state = due.state(now, rules.calendar)
        return ComputedDeadline(ruling=ruling, clock=clock, due=due, state=state, calendar=rules.calendar.version)

    def changes(
        self,
        actor: Actor,
        call: RequestContext,
        *,
        kind: RuleKind | None = None,
        state: ChangeState | None = None,
        before: str = "",
        limit: int = MAX_PAGE,
    ) -> Sequence[RuleChange | DamagedRow]:
        """List changes, newest first: older than the one with the id *before*; fewer than *limit* only at the end.

        Raises:
            RefusedError: the actor may not.
        """
        self._admit_read(actor, call)
        with self._database.read() as reader:
            return self._store.page(reader, kind=kind, state=state, before=before, limit=limit)

    def change(self, actor: Actor, call: RequestContext, change_id: str) -> RuleChange:
        """Return one change, with what it says.

        Raises:
            RefusedError: the actor may not.
            InvalidError: NOT_FOUND.
            CorruptError: ROW_FORGED.
        """
        self._admit_read(actor, call)
        with self._database.read() as reader:
            return self._get(reader, change_id, None)

    def _propose(
        self, actor: Actor, call: RequestContext, kind: RuleKind, parsed: Callable[[], tuple[str, str]]
    ) -> RuleChange:
        decision = self._decide(actor, Action.RULES_PROPOSE)
        with self._enforcer.act(actor, Action.RULES_PROPOSE, str(kind), call, decision) as (work, act):
            subject, content = parsed()
            change = RuleChange(
                id=self._new_id(),
                kind=kind,
                subject=subject,
                content=content,
                proposed_by=actor.id,
                proposed_at=self._now(),
            )
            self._check(change, self._store.in_force(work))
            self._check_open(work, change)
            self._store.add(work, change)
            act.note(change=change.id, subject=subject, digest=change.digest)
        return change

    def _check_open(self, work: UnitOfWork, change: RuleChange) -> None:
        waiting = self._store.page(work, state=ChangeState.PROPOSED, limit=MAX_OPEN)
        if len(waiting) >= MAX_OPEN:
            raise ConflictError(
                Reason.TRANSITION_NOT_ALLOWED,
                f"{len(waiting)} proposed changes wait for a decision already; decide on them first",
            )
        for one in waiting:
            if isinstance(one, RuleChange) and (one.kind, one.subject) == (change.kind, change.subject):
                raise ConflictError(
                    Reason.ALREADY_EXISTS,
                    f"a change of {_resource(change)} is proposed already, as {one.id}; confirm or reject that one",
                    details={"change": one.id},
                )

    def _check(self, change: RuleChange, in_force: Sequence[RuleChange]) -> dict[str, Json]:
        """Check a change against what is in force without it; return what its confirmation tells."""
        others = [one for one in in_force if (one.kind, one.subject) != (change.kind, change.subject)]
        rules = rules_of([*others, change])
        match change.kind:
            case RuleKind.CALENDAR:
                arranged = next(one for one in rules.calendar.years if str(one.year) == change.subject)
                missed = rules.calendar.missed_holidays(arranged)
                if missed:
                    raise InvalidError(
                        Reason.CONFIG_INVALID,
                        f"got a calendar of {change.subject} in which {missed[0]} is a working day; expected every "
                        "holiday of a fixed date that the law has, and all days of the notice in one file",
                    )
                return _days(arranged) | {"calendar": rules.calendar.version}
            case RuleKind.PROFILE:
                profile = profiles_of([change])[change.subject]
                before = profiles_of(in_force).get(change.subject)
                if before is not None and profile.version <= before.version and profile.digest != before.digest:
                    raise ConflictError(
                        Reason.VERSION_CONFLICT,
                        f"got version {profile.version} of the profile {change.subject}, and version {before.version} "
                        "is there; raise `version:` with every change, as entries name it",
                    )
                return _limits(profile)
            case RuleKind.ORDER:
                return {"profiles": [*change.content.split()]}

    def _get(self, reader: Reader, change_id: str, kind: RuleKind | None) -> RuleChange:
        change = self._store.get(reader, change_id)
        if change is None or kind not in {None, change.kind}:
            what = "change of rules" if kind is None else f"change of a {kind}"
            raise InvalidError(Reason.NOT_FOUND, f"there is no {what} {change_id[:64]!r}; list them first")
        return change

    def _admit_read(self, actor: Actor, call: RequestContext) -> None:
        self._enforcer.admit(actor, Action.RULES_READ, "*", call, self._decide(actor, Action.RULES_READ))

    def _decide(self, actor: Actor, action: Action) -> Allow | Deny:
        return decide_control(actor, action, standing=self._attributes.standing(actor))


def _resource(change: RuleChange) -> str:
    return f"{change.kind}/{change.subject}" if change.subject else str(change.kind)


def _days(arranged: ArrangedYear) -> dict[str, Json]:
    return {
        "holidays": [one.date.isoformat() for one in arranged.days if not one.is_workday],
        "workdays": [one.date.isoformat() for one in arranged.days if one.is_workday],
    }


def _limits(profile: RuleProfile) -> dict[str, Json]:
    limits: dict[str, Json] = {}
    for rule_id, rule in profile.rules.items():
        more = "" if rule.extension is None else f" + {rule.extension.most}"
        pause = "" if rule.pause is None else f", {rule.pause.then} after a pause"
        limits[str(rule_id)] = f"{rule.limit}{more}{pause} ({rule.clause.en})"
    return {"version": profile.version, "profile_digest": profile.digest, "limits": limits}
