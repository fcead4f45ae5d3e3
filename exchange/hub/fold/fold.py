"""The fold (survivorship): golden record and conflicts as a function of rules and claims. Pure.

    golden = fold(plan, claims, valid)

Field by field the candidates are the current claims of resources which the field's rule names, with a value. The
winner is the least of (rank, −valid_from, −recorded_at, resource, partition, −offset, item): a total order, so that
the result depends on the set of claims alone, whatever order or batches they came in. Every candidate whose normalised
value differs from the winner's is in conflict with it.

Claims of all handles of a component are folded together; an instant is always given, since the fold has no clock.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from types import MappingProxyType
from typing import TypeAlias

from exchange.hub.fold.claim import Claim, Held, Instant, Value, current, next_change
from exchange.hub.fold.golden import NO_FLAG, Cell, Conflict, FieldFlag, Golden, Source, Sourced
from exchange.hub.fold.normalise import Normaliser
from exchange.hub.fold.rules import Kind, Rules

__all__ = ["FieldPlan", "Order", "Plan", "conflicts", "derived", "fold", "order_of", "plan"]

Order: TypeAlias = tuple[int, int, int, int, int, int, bytes]


@dataclass(frozen=True, slots=True)
class FieldPlan:
    """The rule of one stored field, with the numbers of resources.

    Attributes:
        name: of the field.
        kind: lead, newest or set.
        ranks: by resource; a resource that is missing says nothing about the field.
        strict: whether the first rank alone fills the field; the others are compared.
        normalise: for comparison.
    """

    name: str
    kind: Kind
    ranks: Mapping[int, int]
    strict: bool
    normalise: Normaliser

    def fills(self, resource: int) -> bool:
        """Return whether a claim of a resource may fill the field."""
        rank = self.ranks.get(resource)
        return rank is not None and not (self.strict and rank > 0)


@dataclass(frozen=True, slots=True)
class Plan:
    """Rules with the numbers of resources, ready to fold.

    Attributes:
        version: of the rules.
        fields: the stored fields, in order of the names.
        links: resources whose links are trusted.
    """

    version: int
    fields: tuple[FieldPlan, ...]
    links: frozenset[int]

    @property
    def resources(self) -> frozenset[int]:
        """Every resource that the rules name; what others state about a subject is of another library."""
        return self.links.union(*(field.ranks for field in self.fields))


def plan(rules: Rules, numbers: Mapping[str, int]) -> Plan:
    """Return a plan of rules, with the numbers that resources have in positions.

    A resource without a number has no claims yet.
    """
    fields = []
    for name in rules.stored:
        rule = rules.fields[name]
        ranked = enumerate(rule.order)
        ranks = {numbers[one]: rank if rule.kind is Kind.LEAD else 0 for rank, one in ranked if one in numbers}
        fields.append(FieldPlan(name, rule.kind, MappingProxyType(ranks), rule.strict, rules.normaliser_of(name)))
    trusted = frozenset(numbers[one] for one in rules.links if one in numbers)
    return Plan(rules.version, tuple(fields), trusted)


def fold(made: Plan, claims: Collection[Claim], valid: Instant) -> Golden:
    """Return the golden record of a subject's claims at an instant."""
    now = current(claims, valid)
    cells = {field.name: _cell(field, now) for field in made.fields}
    sources = tuple(Source.of(one) for one in now)
    return Golden(made.version, sources, MappingProxyType(cells), next_change(claims, valid))


def conflicts(made: Plan, claims: Collection[Claim], valid: Instant) -> frozenset[Conflict]:
    """Return the pairs of current claims that contradict each other."""
    now = current(claims, valid)
    found: set[Conflict] = set()
    for field in made.fields:
        candidates = _candidates(field, now)
        winner = _winner(field, candidates, now)
        if winner is not None:
            won = now[winner].claim.position
            found |= {
                Conflict(field.name, won, now[one].claim.position) for one in _differing(field, candidates, winner)
            }
    return frozenset(found)


def order_of(rank: int, one: Held | Source) -> Order:
    """Return the place of a claim among the candidates of a field; the least wins."""
    if isinstance(one, Held):
        one = Source.of(one)
    place = one.position
    return rank, -one.valid_from, -one.recorded_at, place.resource, place.partition, -place.offset, one.item


def derived(rules: Rules, values: Mapping[str, Value], day: date) -> dict[str, Value]:
    """Return the derived fields of a golden record on a day; None where what they are made from is missing."""
    found: dict[str, Value] = {}
    for name, rule in rules.fields.items():
        if rule.kind is Kind.DERIVED:
            parts = [values.get(source) for source in rule.of]
            found[name] = None if None in parts else _age_class(parts, day)
    return found


def _cell(field: FieldPlan, now: Sequence[Held]) -> Cell:
    candidates = _candidates(field, now)
    if field.kind is Kind.SET:
        return _distinct(field, candidates, now)
    winner = _winner(field, candidates, now)
    if winner is None:
        return Cell()
    one = now[winner]
    flags = NO_FLAG
    if _differing(field, candidates, winner):
        flags |= FieldFlag.CONFLICT
    if field.ranks[one.claim.position.resource] > 0:
        flags |= FieldFlag.SECONDARY
    if one.assumed:
        flags |= FieldFlag.ASSUMED
    return Cell(candidates[winner], winner, flags)


def _candidates(field: FieldPlan, now: Sequence[Held]) -> dict[int, Value]:
    """Return the values of claims that state one, by index, the best claim first."""
    stated = []
    for at, one in enumerate(now):
        rank = field.ranks.get(one.claim.position.resource)
        value = None if one.claim.values is None else one.claim.values.get(field.name)
        if rank is not None and value is not None:
            stated.append((order_of(rank, one), at, value))
    return {at: value for _, at, value in sorted(stated, key=lambda each: each[0])}


def _winner(field: FieldPlan, candidates: Mapping[int, Value], now: Sequence[Held]) -> int | None:
    """Return the index of the claim that fills the field, or None."""
    if field.kind is Kind.SET:
        return None  # keeps every value, so none wins over another
    return next((at for at in candidates if field.fills(now[at].claim.position.resource)), None)


def _differing(field: FieldPlan, candidates: Mapping[int, Value], winner: int) -> list[int]:
    """Return the candidates whose value is another one than the winner's."""
    won = field.normalise(candidates[winner])
    return [at for at, value in candidates.items() if field.normalise(value) != won]


def _distinct(field: FieldPlan, candidates: Mapping[int, Value], now: Sequence[Held]) -> Cell:
    """Return every distinct value with the best of its sources."""
    kept: dict[Value, Sourced] = {}
    for at, value in candidates.items():
        kept.setdefault(field.normalise(value), Sourced(value, at))
    if not kept:
        return Cell()
    values = tuple(kept.values())
    assumed = any(now[one.source].assumed for one in values)
    return Cell(values, values[0].source, FieldFlag.ASSUMED if assumed else NO_FLAG)


def _age_class(parts: Sequence[Value], day: date) -> Value:
    """Return the age class of a date of birth: completed years."""
    born = parts[0]
    if isinstance(born, int):  # Avro's date: days since 1970
        born = date(1970, 1, 1) + timedelta(days=born)
    if not isinstance(born, date) or born > day:
        return None
    years = day.year - born.year - ((day.month, day.day) < (born.month, born.day))
    for least, name in _AGE_CLASSES:
        if years >= least:
            return name
    return None


_AGE_CLASSES = ((80, "80+"), (60, "60-79"), (18, "18-59"), (14, "14-17"), (0, "0-13"))
