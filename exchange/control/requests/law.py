"""Law of requests as acts carry it out: a stored request, an event of the pure table, and what the entry says of it.

request = law.current(work, grant)                         locked with its grant; levels and share type as they are
request = law.advanced(work, act, request, Act(…), persons)
law.put(work, request)                                      after the last event of the act
grant = followed(grant, request)                            who signed, in the grant's own members
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

from exchange.authorization.attributes import AttributeProvider
from exchange.authorization.enforcement import AuditedAct
from exchange.control.requests.due_dates import RulesDue
from exchange.control.requests.stored import StoredRequests
from exchange.deadlines.profile import RuleId
from exchange.duties.model import check_covered
from exchange.duties.store import DutyStore
from exchange.requests.guards import Act, Terms, limit_of
from exchange.requests.life_cycle import advance, requesters_of, rule_of
from exchange.requests.model import Event, Office, RequestState, ShareRequest, required_offices
from exchange.requests.rules import Clock, RequestRule
from registry.database.unit_of_work import Reader, UnitOfWork
from registry.directory.model import ShareType
from schemas.access import Grant, GrantState
from schemas.canonical import Json
from schemas.errors import RefusedError

__all__ = ["DutyLists", "RequestLaw", "accounts_of", "followed", "unsigned"]

_UNDECIDED = frozenset({RequestState.SUBMITTED, RequestState.COUNTERSIGNED, RequestState.IN_DISPUTE})
_DONE = frozenset({Event.CONCLUDE, Event.REJECT, Event.PROVISION})  # what a clock of the provider runs for
_BEGUN = frozenset({Event.SUBMIT, Event.RESUBMIT, Event.EXTEND})  # after them a clock of the reply runs
_RECTIFIED_WITHIN = timedelta(days=14)  # where no profile has the rule


class DutyLists:
    """Duty lists as the pure table asks for them.

    Args:
        reader: of this act.
        duties: the lists.
    """

    def __init__(self, reader: Reader, duties: DutyStore) -> None:
        self._reader = reader
        self._duties = duties

    def covers(self, department: str, duty: str, purpose: str) -> bool:
        """See `exchange.requests.guards.Duties.covers`.

        Raises:
            CorruptError: ROW_FORGED.
        """
        try:
            check_covered(
                has_list=bool(self._duties.count(self._reader, department, 1)),
                item=self._duties.get(self._reader, department, duty) if duty else None,
                duty=duty,
                purpose=purpose,
            )
        except RefusedError:
            return False
        return True


class RequestLaw:
    """Carries events of requests out.

    Args:
        requests: the stored ones.
        attributes: resources, levels, rules in force.
        duties: the duty lists.
    """

    def __init__(self, requests: StoredRequests, attributes: AttributeProvider, duties: DutyStore) -> None:
        self.requests = requests
        self._attributes = attributes
        self._duties = duties

    def current(
        self, reader: Reader, grant: Grant, *, sensitive: bool | None = None, together: tuple[str, ...] | None = None
    ) -> ShareRequest:
        """Return the request of a grant as it is to be decided on now.

        While it is undecided, share type and level are those of now. A countersignature does not count that was given
        before the consumer held what it holds now.

        Args:
            reader: of this act.
            grant: locked.
            sensitive: whether all that its consumer would hold shows more than the schema's masks; None = as stored.
            together: ids of what its consumer holds beside it; None = not known here.

        Raises:
            CorruptError: ROW_FORGED.
        """
        request = self.requests.of(reader, grant)
        if request.state not in _UNDECIDED:
            return request
        resource = self._attributes.resource_of(reader, grant.topic)
        level = self._attributes.level_of(reader, grant)
        request = replace(
            request,
            share_type=request.share_type if resource is None else ShareType(resource.share_type),
            level=request.level if level is None else level,
            sensitive=request.sensitive if sensitive is None else sensitive,
        )
        if together is not None and not set(together) <= set(grant.together_with):
            kept = tuple(one for one in request.signatures if one.office is not Office.SECURITY_OFFICER)
            request = replace(request, signatures=kept)
        return request

    def terms(self, reader: Reader, request: ShareRequest, persons: Mapping[str, str]) -> Terms:
        """Return under what a request is decided.

        Raises:
            CorruptError: ROW_FORGED, a row of the rules.
        """
        due = RulesDue(self._attributes.rules(reader), request.share_type)
        return Terms(due=due, duties=DutyLists(reader, self._duties), persons=persons)

    def advanced(
        self, work: UnitOfWork, audited: AuditedAct, request: ShareRequest, act: Act, persons: Mapping[str, str]
    ) -> ShareRequest:
        """Return the request after an event; the entry notes article, lateness, and rule and profile of the limit.

        Raises:
            ConflictError, InvalidError, RefusedError: as `exchange.requests.life_cycle.advance`.
        """
        terms = self.terms(work, request, persons)
        rule = rule_of(request, act.event)
        after = advance(request, act, terms)
        before = audited.data.get("events")
        events: list[Json] = [*(before if isinstance(before, list) else []), str(act.event)]
        audited.note(events=events, **self._said(request, after, _clock_of(rule), terms))
        return after

    def tried(self, reader: Reader, request: ShareRequest, act: Act, persons: Mapping[str, str]) -> ShareRequest:
        """Return the request after an event that is not carried out.

        Raises:
            ConflictError, InvalidError, RefusedError: as `exchange.requests.life_cycle.advance`.
        """
        return advance(request, act, self.terms(reader, request, persons))

    def put(self, work: UnitOfWork, request: ShareRequest) -> None:
        """Store a request, as `StoredRequests.put` does."""
        self.requests.put(work, request)

    def rectify_until(self, reader: Reader, act: Act) -> Act:
        """Return an act of suspension with the time until which the grant can be rectified, as the profiles say."""
        if act.rectify_until is not None:
            return act
        rules = self._attributes.rules(reader)
        known = rules.book.find(RuleId.RECTIFICATION) is not None
        until = rules.due(RuleId.RECTIFICATION, act.at).at if known else act.at + _RECTIFIED_WITHIN
        return replace(act, rectify_until=until)

    def _said(self, before: ShareRequest, after: ShareRequest, clock: Clock | None, terms: Terms) -> dict[str, Json]:
        step = after.history[-1]
        said: dict[str, Json] = {"article": step.article, "profiles": step.profile}
        if step.late:
            said["late"] = True
        violations = [one.violation for one in after.history[len(before.history) :] if one.violation]
        if violations:
            said["violation"] = violations[0]
        if clock is not None and isinstance(terms.due, RulesDue):
            span = limit_of(after if step.event in _BEGUN else before, clock)
            ruling = None if span is None else terms.due.find(span.limit)
            if span is not None and ruling is not None:
                due = terms.due.due(span.limit, span.start, extension=span.extension, pauses=span.pauses)
                said |= ruling.noted_clock(due, done_at=step.at if step.event in _DONE else None)
        return {name: value for name, value in said.items() if value}


def _clock_of(rule: RequestRule) -> Clock | None:
    return Clock.REPLY if rule.event in _BEGUN else rule.clock


def followed(grant: Grant, request: ShareRequest) -> Grant:
    """Return the grant with the signatures of its request."""
    first = next((one for one in request.signatures if one.office is not Office.SECURITY_OFFICER), None)
    officer = next((one for one in request.signatures if one.office is Office.SECURITY_OFFICER), None)
    return replace(
        grant,
        state=GrantState(request.state.value),
        approved_by=None if first is None else first.account,
        approved_at=None if first is None else (request.approved_at or first.at),
        confirmed_by=None if officer is None else officer.account,
    )


def unsigned(request: ShareRequest) -> list[str]:
    """Return the offices whose signature an agreeing reply still lacks, sorted."""
    return sorted(required_offices(request) - {one.office for one in request.signatures})


def accounts_of(request: ShareRequest) -> tuple[str, ...]:
    """Return the accounts whose persons an event is compared with: who requested, and who signed."""
    return (*requesters_of(request), *(one.account for one in request.signatures))
