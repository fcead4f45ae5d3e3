"""Review of grants: what an approver must know, as values and in words.

A grant is decided on together with all that its consumer holds of the resource (`exchange.access.grants.holding`). This
module gathers that holding from the store, the catalogue and the registry, and puts it in words for both approvers, for
lists, and for the audit entry of the decision.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol, TypeAlias

from exchange.access.decision.parties import flow_of
from exchange.access.grants.exposure import Exposure, SchemaMasks, exposure_of, undecided_exposure
from exchange.access.grants.holding import ENDED, HOLDING, Holding, Part
from exchange.access.grants.renewal import delivered_before, describe_renewal, takes_the_place_of
from exchange.access.grants.returned import returned_area
from exchange.access.grants.store import AccessStore, GrantQuery, GrantVersion
from exchange.access.view.filter import fields_of
from exchange.authorization.attributes import AttributeProvider, Profiles
from exchange.control.duties.decision import describe_duty
from exchange.control.grants.similar import similar_decisions
from exchange.control.requests.due_dates import reply_due
from exchange.control.requests.stored import StoredRequests, received_at
from exchange.deadlines.clock import Due, DueState
from exchange.deadlines.in_force import RulesInForce
from exchange.duties.store import DutyStore
from exchange.requests.model import COUNTERSIGNED_FROM, ShareRequest
from exchange.requests.store import MemoryRequests
from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import Reader
from schemas.access import Grant, GrantState, Level, MaskRule
from schemas.audit import Flow
from schemas.canonical import Json
from schemas.errors import CorruptError, InvalidError
from schemas.names import Topic

__all__ = ["GrantReview", "Review", "SchemaMaskSource", "decision_data", "describe"]

_Levels: TypeAlias = dict[tuple[Topic, frozenset[str]], Level | None]
_MOST_ENDED = 200  # ids of ended grants in a document, the latest ones
_ASKED = frozenset({GrantState.SUBMITTED, GrantState.COUNTERSIGNED, GrantState.APPROVED})
_WAITS = frozenset({GrantState.SUBMITTED, GrantState.COUNTERSIGNED})
_UNDECIDED_IN = frozenset({GrantState.ACTIVE, GrantState.SUSPENDED})


class SchemaMaskSource(Protocol):
    """Reads how a resource's schema masks its fields."""

    def masks(self, reader: Reader, topic: Topic) -> SchemaMasks:
        """Return how the latest schema of a topic masks its fields.

        Raises:
            InvalidError: SUBJECT_UNKNOWN, SCHEMA_UNCLASSIFIED.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """A grant, and what is to be known of it.

    Attributes:
        grant: its current version.
        exposure: what it shows beyond the schema's masks.
        undecided: the part of that which no request wrote out.
        words: sentences for a person.
        labels: Chinese labels of its fields and of those of its filter, from the schema.
        submitted_at: when its request was received; None where its id does not say so.
        deadline: until when its request has to be decided.
        due: how near that is, while the request waits; None for others.
        holding: all that its consumer holds of the resource; None in lists.
        versions: every version, oldest first; none in lists.
        flow: of a delivery under it, by its parties now; None where one of them is not known.
        levels: current level of each field, of the filter's too; None in lists.
        similar: decisions on other departments' requests for the resource; none in lists, and none for its consumer.
    """

    grant: Grant
    exposure: Exposure
    undecided: Exposure
    words: tuple[str, ...]
    labels: Mapping[str, str]
    submitted_at: datetime | None = None
    deadline: Due | None = None
    due: DueState | None = None
    holding: Holding | None = None
    versions: Sequence[GrantVersion] = ()
    flow: Flow | None = None
    levels: Mapping[str, Level] | None = None
    similar: Sequence[Grant] = ()

    def to_json(self) -> dict[str, Json]:
        """Return the review's document."""
        document: dict[str, Json] = {
            "unmasked": list(self.exposure.unmasked),
            "filter_discloses": list(self.exposure.disclosed),
            "undecided": bool(self.undecided),
            "words": list(self.words),
            "labels": dict(self.labels),
            "flow": None if self.flow is None else str(self.flow),
        }
        if self.levels:
            document["levels"] = {name: level.name for name, level in self.levels.items()}
        if self.similar:
            document["similar"] = [
                {
                    "grant": one.id,
                    "consumer": one.consumer,
                    "purpose": one.purpose,
                    "fields": list(one.fields),
                    "state": str(one.state),
                }
                for one in self.similar
            ]
        if self.versions:
            document["versions"] = [
                {
                    "version": one.grant.version,
                    "state": str(one.grant.state),
                    "at": one.recorded_at.isoformat(),
                    "entry": one.entry_id,
                }
                for one in self.versions
            ]
        if self.holding is not None:
            level = self.holding.level
            document["together"] = {
                "grants": list(self.holding.together_with),
                "ended": [ended.id for ended in self.holding.ended[-_MOST_ENDED:]],
                "fields": list(self.holding.fields),
                "adds": list(self.holding.adds),
                "unmasked": list(self.holding.unmasked),
                "filter_discloses": list(self.holding.disclosed),
                "level": None if level is None else level.name,
                "sensitive": self.holding.sensitive,
            }
        return document


class GrantReview:
    """Gathers holdings and reviews.

    Args:
        access: the grants.
        schemas: how schemas mask fields.
        attributes: for the levels of fields.
        duties: for the duty of a request, in words; without them, none are said.
        requests: the stored requests, by which a reply is due; without them, as the grants' rows tell them.
    """

    def __init__(
        self,
        access: AccessStore,
        schemas: SchemaMaskSource,
        attributes: AttributeProvider,
        duties: DutyStore | None = None,
        requests: StoredRequests | None = None,
    ) -> None:
        self._duties = duties
        self._requests = requests or StoredRequests(MemoryRequests(), attributes)
        self._access = access
        self._schemas = schemas
        self._attributes = attributes

    def holding(self, reader: Reader, grant: Grant) -> Holding:
        """Return a grant together with all that its consumer holds of the resource.

        Raises:
            CorruptError: GRANT_FORGED, a grant of it is not the one that the pool wrote.
        """
        masks: dict[Topic, SchemaMasks] = {}
        levels: _Levels = {}
        found: list[Grant] = []
        query = GrantQuery(consumer=grant.consumer, resource=grant.topic.name, states=HOLDING | ENDED)
        while page := self._access.list(reader, query):
            found += page
            query = replace(query, after=page[-1].id)
        before = delivered_before(grant, found)
        return Holding(
            part=self._part(reader, grant, masks, levels),
            others=tuple(
                self._part(reader, one, masks, levels)
                for one in found
                if one in before or (one.id != grant.id and one.state in HOLDING and not takes_the_place_of(grant, one))
            ),
            ended=tuple(one for one in found if one.id != grant.id and one.state in ENDED),
            masks=masks,
        )

    def review(self, reader: Reader, grant: Grant, *, similar: bool = False) -> Review:
        """Return the review of one grant, with its holding; *similar*: with decisions that name other consumers.

        Raises:
            CorruptError: GRANT_FORGED.
        """
        holding = self.holding(reader, grant)
        masks = holding.masks[grant.topic]
        duty = [] if self._duties is None else describe_duty(reader, self._duties, grant)
        profiles = self._attributes.profiles(reader, (grant.consumer, grant.provider))
        words = duty + _describe_return(grant, masks, profiles) + self._describe_renewal(reader, grant)
        words += _describe_grant(grant, masks)
        words += _describe_holding(holding) if _counts(grant) else []
        review = replace(
            _reviewed(grant, masks, words, holding, self._access.versions(reader, grant.id)),
            flow=_flow(grant, profiles),
            levels=self._attributes.levels_of(reader, grant),
            similar=similar_decisions(self._access, reader, grant) if similar else (),
        )
        request = self._requests.some(reader, [grant])[grant.id]
        return _with_deadline(review, self._attributes.now(reader), self._rules(reader), request)

    def reviews(self, reader: Reader, grants: Sequence[Grant | DamagedRow]) -> list[Review | DamagedRow]:
        """Return the reviews of a list, without holdings; a damaged row stays one."""
        masks: dict[Topic, SchemaMasks] = {}
        listed: list[Review | DamagedRow] = []
        if not grants:
            return listed
        now, rules = self._attributes.now(reader), self._rules(reader)
        read = [grant for grant in grants if not isinstance(grant, DamagedRow)]
        requests = self._requests.some(reader, read)
        profiles = self._attributes.profiles(
            reader, {one for grant in read for one in (grant.consumer, grant.provider)}
        )
        for grant in grants:
            if isinstance(grant, DamagedRow):
                listed.append(grant)
                continue
            known = self._masks(reader, grant.topic, masks)
            review = _reviewed(grant, known, _describe_grant(grant, known), None)
            review = replace(review, flow=_flow(grant, profiles))
            listed.append(_with_deadline(review, now, rules, requests[grant.id]))
        return listed

    def sharing_data(self, reader: Reader, grant: Grant) -> dict[str, Json]:
        """Return what the entry of an activation says of its parties: the flow, and the zones that it crosses."""
        flow = _flow(grant, self._attributes.profiles(reader, (grant.consumer, grant.provider)))
        said: dict[str, Json] = {} if flow is None else {"flow": str(flow)}
        return said | ({"zones": [grant.source_zone, grant.zone]} if grant.source_zone else {})

    def is_returned(self, reader: Reader, grant: Grant) -> bool:
        """Return whether a request is one of return flow (decree 809, Art. 24)."""
        profiles = self._attributes.profiles(reader, (grant.consumer, grant.provider))
        return bool(_returned(grant, self._masks(reader, grant.topic, {}), profiles))

    def _describe_renewal(self, reader: Reader, grant: Grant) -> list[str]:
        return describe_renewal(grant, self._access.get(reader, grant.renews)) if grant.renews else []

    def _rules(self, reader: Reader) -> RulesInForce | None:
        """Return the rules in force; None where a row of them is damaged: a grant shows no deadline then."""
        try:
            return self._attributes.rules(reader)
        except CorruptError:
            return None

    def _part(self, reader: Reader, grant: Grant, masks: dict[Topic, SchemaMasks], levels: "_Levels") -> Part:
        known = self._masks(reader, grant.topic, masks)
        graded = (grant.topic, frozenset(grant.fields) | fields_of(grant.row_filter))
        if graded not in levels:  # a department may hold hundreds of grants of one form
            levels[graded] = self._attributes.level_of(reader, grant)
        return Part(grant=grant, level=levels[graded], exposure=exposure_of(grant, known))

    def _masks(self, reader: Reader, topic: Topic, masks: dict[Topic, SchemaMasks]) -> SchemaMasks:
        if topic not in masks:
            try:
                masks[topic] = self._schemas.masks(reader, topic)
            except InvalidError:  # a schema that cannot be read shows nothing: each of its fields counts as dropped
                masks[topic] = {}
        return masks[topic]


def decision_data(holding: Holding) -> dict[str, Json]:
    """Return what the entry of a decision says of all that the consumer will hold; nothing where there is nothing."""
    level = holding.level
    said: Mapping[str, Json] = {
        "together_with": list(holding.together_with),
        "unmasked": list(holding.unmasked),
        "filter_discloses": list(holding.disclosed),
        "level": level.name if level is not None and holding.others else None,
    }
    return {name: value for name, value in said.items() if value}


def describe(review: Review) -> str:
    """Return the words of a review as lines of text."""
    return "\n".join(review.words)


def _flow(grant: Grant, profiles: Profiles) -> Flow | None:
    provider, consumer = profiles.get(grant.provider), profiles.get(grant.consumer)
    return None if provider is None or consumer is None else flow_of(provider, consumer)


def _returned(grant: Grant, masks: SchemaMasks, profiles: Profiles) -> str:
    return returned_area(grant, masks, profiles.get(grant.provider), profiles.get(grant.consumer))


def _describe_return(grant: Grant, masks: SchemaMasks, profiles: Profiles) -> list[str]:
    area = _returned(grant, masks, profiles)
    said = (
        f"return flow (回流): rows whose division begins with {area}, of the department's own area; the law allows no "
        "conditions beyond those of the published entry (decree 809, Art. 24)"
    )
    return [said] if area else []


def _counts(grant: Grant) -> bool:
    return grant.state in HOLDING | _ASKED


def _reviewed(
    grant: Grant,
    masks: SchemaMasks,
    words: list[str],
    holding: Holding | None,
    versions: Sequence[GrantVersion] = (),
) -> Review:
    named = dict.fromkeys([*grant.fields, *sorted(fields_of(grant.row_filter))])
    undecided = undecided_exposure(grant, masks) if grant.state in _UNDECIDED_IN | _ASKED else Exposure()
    return Review(
        grant=grant,
        exposure=exposure_of(grant, masks),
        undecided=undecided,
        words=tuple(words),
        labels={field: masks[field].zh for field in named if field in masks and masks[field].zh},
        holding=holding,
        versions=versions,
    )


def _with_deadline(
    review: Review, now: datetime, rules: RulesInForce | None, request: ShareRequest | DamagedRow
) -> Review:
    if isinstance(request, DamagedRow):
        return review
    # When a request was first received its id says; a clock that has restarted began with its supplement.
    review = replace(review, submitted_at=received_at(review.grant))
    if rules is None:
        return review
    deadline = reply_due(request, rules)
    due = None if deadline is None or review.grant.state not in _WAITS else deadline.state(now, rules.calendar)
    return replace(review, deadline=deadline, due=due)


def _describe_grant(grant: Grant, masks: SchemaMasks) -> list[str]:
    """Return what a grant shows beyond the schema's masks, one sentence a field."""
    found = exposure_of(grant, masks)
    undecided = undecided_exposure(grant, masks)
    rules = dict(grant.masks)
    sentences = []
    for field in found.unmasked:
        rule = rules.get(field, MaskRule.NONE)
        shown = "in clear" if rule is MaskRule.NONE else f"as {rule}"
        sentences.append(
            f"{_named(field, masks)} {shown}, where the schema shows it as {_stated(field, masks)}; "
            + ("no request wrote that out" if field in undecided.unmasked else f"reason: {grant.unmasked_reason}")
        )
    sentences += [
        f"every delivered row tells {_named(field, masks)}, by which the rows are chosen; the schema shows it as "
        f"{_stated(field, masks)}; "
        + ("no request named that" if field in undecided.disclosed else f"reason: {grant.disclosure_reason}")
        for field in found.disclosed
    ]
    if grant.source_zone:
        sentences.append(
            f"records are delivered out of the zone {grant.source_zone} into {grant.zone}; reason: {grant.zone_reason}"
        )
    if grant.places:
        sentences.append(
            "each delivered record tells its place in the topic, and so how many records lie between two of them; "
            f"reason: {grant.disclosure_reason}"
        )
    if undecided and grant.suspend_after is not None and grant.state is GrantState.ACTIVE:
        sentences.append(
            f"the grant is suspended after {grant.suspend_after.isoformat()}, unless another one that writes this out "
            "is asked for and approved, and this one ended"
        )
    return sentences


def _describe_holding(holding: Holding) -> list[str]:
    """Return what the consumer will hold of the resource, and who must agree."""
    grant, sentences = holding.grant, []
    if holding.others:
        clear = f"; not as the schema masks it: {', '.join(holding.unmasked)}" if holding.unmasked else ""
        told = f"; told by row filters: {', '.join(holding.disclosed)}" if holding.disclosed else ""
        level = holding.level.name if holding.level is not None else "unknown"
        sentences.append(
            f"together with grants {', '.join(holding.together_with)} this department will hold of "
            f"{grant.topic.name}: {', '.join(holding.fields)}{clear}{told}; highest level {level}; the records of "
            "these grants can be joined, row by row"
        )
        sentences.append(
            f"this grant adds {', '.join(holding.adds)}" if holding.adds else "this grant adds no field to the others"
        )
    if holding.ended:
        fields = dict.fromkeys(field for ended in holding.ended for field in ended.fields)
        sentences.append(
            f"{len(holding.ended)} grants have ended, the last of them {holding.ended[-1].id}; what they delivered "
            f"({', '.join(fields)}) may still be at the department"
        )
    shown = grant.ceiling if holding.part.level is None else holding.part.level
    two_persons = holding.sensitive or shown >= COUNTERSIGNED_FROM
    if two_persons and grant.state in _ASKED:
        sentences.append(
            f"confirmed by {grant.confirmed_by}"
            if grant.confirmed_by is not None and set(holding.together_with) <= set(grant.together_with)
            else "a security officer of the providing department must confirm this before it can be approved"
        )
    return sentences


def _named(field: str, masks: SchemaMasks) -> str:
    label = masks[field].zh if field in masks else ""
    return f"{field} {label}".strip()


def _stated(field: str, masks: SchemaMasks) -> str:
    return masks[field].stated if field in masks else "drop"
