"""Claims of a few subjects for tests of the hub: small worlds in which times, items and values collide often."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import hypothesis.strategies as st
import pyarrow as pa

from exchange.hub.fold.claim import Claim, Position
from exchange.hub.fold.fold import Plan, plan
from exchange.hub.fold.identity import Handle, Link
from exchange.hub.fold.rules import Rules, parse
from schemas.record import Operation

NUMBERS: Final = {"population.v1": 1, "marriages.v1": 2, "insured.v2": 3, "travel-permits.v1": 4}
FIELDS: Final = ("full_name", "mobile_phone", "sex_code", "titles")
SUBJECT: Final = Handle(bytes(16))
HANDLES: Final = tuple(Handle(bytes([number * 40] + [number] * 15)) for number in range(4))
"""The first two stand for citizen numbers."""

NOW: Final = 100
"""The instant of most folds; times of claims lie around it."""


def document(version: int = 1, **fields: Any) -> dict[str, Any]:
    """Return a document of rules with one field of each kind."""
    whole: dict[str, Any] = {
        "full_name": {
            "rule": "lead",
            "order": ["population.v1", "marriages.v1", "insured.v2"],
            "normalise": "nfkc_space",
        },
        "sex_code": {"rule": "lead", "order": ["population.v1", "insured.v2"], "strict": True},
        "mobile_phone": {"rule": "newest", "order": ["insured.v2", "population.v1"], "normalise": "digits"},
        "titles": {"rule": "set", "order": ["population.v1", "marriages.v1"]},
    }
    return {"library": "population", "version": version, "links": ["travel-permits.v1"], "fields": whole | fields}


def rules(version: int = 1, **fields: Any) -> Rules:
    return parse(document(version, **fields))


def a_plan(version: int = 1, **fields: Any) -> Plan:
    return plan(rules(version, **fields), NUMBERS)


PLANS: Final = (
    a_plan(1),
    a_plan(
        2,
        full_name={"rule": "lead", "order": ["marriages.v1", "population.v1"]},
        titles={"rule": "lead", "order": ["insured.v2", "marriages.v1", "population.v1"]},
    ),
    a_plan(3, titles={"rule": "newest", "order": ["population.v1", "marriages.v1", "insured.v2"]}),
)
"""Three versions of the rules; all but the first can be overlaid often, since they keep no set."""


def a_claim(offset: int, **changes: Any) -> Claim:
    """Return a claim; *resource* and *partition* stand for its position, other names for its attributes or fields."""
    place = Position(changes.pop("resource", 1), 1, changes.pop("partition", 0), offset)
    fitting: dict[str, Any] = {
        "handle": SUBJECT,
        "position": place,
        "item": bytes([place.partition]) * 16,
        "operation": Operation.UPSERT,
        "applied": offset + 1,
        "recorded_at": 10 + offset,
    }
    values = {name: changes.pop(name) for name in FIELDS if name in changes}
    claim = Claim(**(fitting | {"values": values} | changes))
    return replace(claim, values=None) if claim.operation is Operation.VOID else claim


_TEXTS: Final = (None, None, "a", "b", " ａ")


@dataclass(frozen=True)
class World:
    """Claims of a few linked subjects, in the order in which the hub learnt of them.

    Attributes:
        claims: numbered by `applied` in each bucket, which are as many as the handles.
        plan: the rules.
        valid: the instant.
    """

    claims: tuple[Claim, ...]
    plan: Plan
    valid: int


def random_claims(draw: random.Random, size: int, *, handles: int = 1, linked: bool = False) -> tuple[Claim, ...]:
    """Return claims with voids, corrections, late, future and bounded valid times."""
    offsets: dict[tuple[int, int], int] = {}
    applied: dict[Handle, int] = {}
    lags: dict[tuple[int, int], int] = {}
    clock = 30
    claims: list[Claim] = []
    for _ in range(size):
        clock += draw.choice((0, 1, 5, 20))
        resource = draw.choice((1, 2, 3, 4) if linked else (1, 2, 3))
        partition = draw.choice((0, 0, 0, 1))
        offset = offsets[resource, partition] = offsets.get((resource, partition), -1) + draw.choice((1, 1, 3))
        which = draw.randrange(handles)
        handle = HANDLES[which]
        operation = draw.choice((Operation.UPSERT,) * 5 + (Operation.CORRECT, Operation.VOID))
        start = draw.choice((None, None, clock, clock - 15, clock + 40, 30))
        end = draw.choice((None, None, None, None, clock + 30)) if start is not None else None
        links: tuple[Link, ...] = ()
        if resource == 4 and operation is not Operation.VOID and handles > 1:
            other = draw.choice([one for one in range(handles) if one != which])
            links = (Link.of(handle, HANDLES[other], citizen=which < 2, other_citizen=other < 2),)
        applied[handle] = applied.get(handle, 0) + draw.choice((0, 1)) or 1
        values = None if operation is Operation.VOID else {name: draw.choice(_TEXTS) for name in FIELDS}
        claims.append(
            Claim(
                handle=handle,
                position=Position(resource, 1, partition, offset),
                # An item is of one partition and one subject.
                item=bytes([partition, which]) * 8,
                operation=operation,
                applied=applied[handle],
                # Within a partition time does not go back; a claim of another partition may have waited.
                recorded_at=clock - lags.setdefault((resource, partition), draw.choice((0, 0, 25))),
                valid_from=start,
                valid_to=end,
                values=values,
                links=links,
            )
        )
    return tuple(claims)


@st.composite
def worlds(draw: st.DrawFn, *, handles: int = 1, linked: bool = False, most: int = 9) -> World:
    """Return a world; all but its shape comes from one seed, so that many of them cost little."""
    chance = random.Random(draw(st.integers(0, 2**32 - 1)))
    size = draw(st.integers(0, most))
    claims = random_claims(chance, size, handles=handles, linked=linked)
    return World(claims, chance.choice(PLANS), chance.choice((NOW, NOW, 25, 60, 150)))


def columns(rows: Sequence[dict[str, Any] | None]) -> dict[str, pa.Array]:
    """Return values as columns; a row without values has none in each."""
    return {name: pa.array([None if row is None else row.get(name) for row in rows], pa.string()) for name in FIELDS}
