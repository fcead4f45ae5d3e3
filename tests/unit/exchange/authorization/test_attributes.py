"""What is remembered of a publisher, and for how long."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from exchange.access.decision.parties import DepartmentProfile
from exchange.access.decision.policy import Resource
from exchange.access.decision.roles import Standing
from exchange.authorization import attributes as attributes_module
from exchange.authorization.attributes import AttributeProvider
from registry.database.unit_of_work import MemoryReader
from schemas.access import Actor, ActorKind, Role
from schemas.names import Topic

DEPARTMENT = "01890000-0000-7000-8000-000000000001"
TOPIC = Topic.parse("permits.v1")
ACTOR = Actor(kind=ActorKind.MACHINE, id="source", department=DEPARTMENT, role=Role.CONNECTOR, certificate="a1")
RESOURCE = Resource(topic=TOPIC, provider=DEPARTMENT, published=True, zone="default")


class Registers:
    """Identities and catalogue in one, which count the questions; a clock beside them."""

    def __init__(self) -> None:
        self.now = 100.0
        self.asked = 0
        self.stands = Standing.ACTIVE
        self.known: Resource | None = RESOURCE
        self.key: bytes | None = b"k" * 32
        self.meanwhile: Callable[[], object] = lambda: None  # happens while an answer is on its way
        here: Any = self
        self.attributes = AttributeProvider(
            identities=here,
            catalogue=here,
            access=here,
            rules=here,
            now=here,
            database=here,
            clock=lambda: self.now,
        )

    @contextmanager
    def read(self) -> Iterator[MemoryReader]:
        self.asked += 1
        yield MemoryReader()

    def standing(self, *_: object) -> Standing:
        found, meanwhile = self.stands, self.meanwhile
        self.meanwhile = lambda: None
        meanwhile()
        return found

    def profiles(self, *_: object) -> dict[str, DepartmentProfile]:
        return {DEPARTMENT: DepartmentProfile(id=DEPARTMENT)}

    def resource(self, *_: object) -> Resource | None:
        return self.known

    def signing_key(self, *_: object) -> bytes | None:
        return self.key

    def first(self, topic: Topic = TOPIC) -> Standing:
        """Return the standing by which a check begins."""
        return (self.attributes.recent(ACTOR, topic) or self.attributes.current(ACTOR, topic)).standing


def test_what_was_asked_a_moment_ago_is_remembered_and_then_no_more() -> None:
    registers = Registers()
    assert registers.first() is Standing.ACTIVE
    registers.stands = Standing.REVOKED
    registers.now += 0.19
    assert registers.first() is Standing.ACTIVE
    assert registers.asked == 1
    assert registers.attributes.current(ACTOR, TOPIC).standing is Standing.REVOKED
    assert registers.first() is Standing.REVOKED  # the answer of now is the one that is remembered
    registers.stands = Standing.ACTIVE
    registers.now += 0.21
    assert registers.first() is Standing.ACTIVE


def test_an_act_asks_each_time() -> None:
    registers = Registers()
    registers.attributes.current(ACTOR, TOPIC)
    registers.stands = Standing.REVOKED
    assert registers.attributes.current(ACTOR, TOPIC).standing is Standing.REVOKED
    assert registers.asked == 2


def test_an_answer_is_as_old_as_its_question() -> None:
    registers = Registers()

    def late() -> None:
        registers.now += 1.0
        registers.stands = Standing.REVOKED

    registers.meanwhile = late
    assert registers.first() is Standing.ACTIVE
    assert registers.first() is Standing.REVOKED


def test_an_answer_that_is_late_does_not_replace_a_newer_one() -> None:
    registers = Registers()
    others = Registers()

    def overtaken() -> None:
        registers.now += 0.01
        registers.stands = Standing.REVOKED
        registers.attributes._cache((ACTOR, TOPIC), registers.now + 0.2, others.attributes.current(ACTOR, TOPIC))

    others.stands = Standing.REVOKED
    registers.meanwhile = overtaken
    assert registers.first() is Standing.ACTIVE
    assert registers.first() is Standing.REVOKED
    assert registers.asked == 1


@pytest.mark.parametrize("missing", ["known", "key"])
def test_what_lets_nothing_pass_is_asked_once_and_not_remembered(missing: str) -> None:
    registers = Registers()
    setattr(registers, missing, None)
    for _ in range(2):
        assert registers.attributes.recent(ACTOR, TOPIC) is None
        registers.attributes.current(ACTOR, TOPIC)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attributes_module, "_CACHE_SIZE", 10)
    registers = Registers()
    for number in range(25):
        registers.first(Topic.parse(f"permits-{number}.v1"))
    assert len(registers.attributes._cached) <= 10
