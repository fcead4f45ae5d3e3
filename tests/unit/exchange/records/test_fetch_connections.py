"""A fetch holds no connection to the database while it asks the broker: one that stands still keeps none of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from exchange.access.decision.roles import Standing
from exchange.authorization.request_context import RequestContext
from exchange.authorization.restored import RestoreGuard
from exchange.authorization.serving import ServingGuard
from exchange.broker.port import Ends
from exchange.identity.secrets import MemorySecrets
from exchange.records.fetch import FetchService
from exchange.records.reading.position_token import PositionTokens
from registry.database.unit_of_work import MemoryReader
from schemas.access import GrantState
from schemas.errors import Reason, RefusedError, UnavailableError
from tests.kit.cases.grants import a_connector, a_grant

CALL = RequestContext(trace="0" * 32, client="test")


class Rooms:
    """What surrounds a fetch; the broker and the enforcer notice whether a reader is open."""

    def __init__(self) -> None:
        self.open = 0
        self.asked: list[str] = []
        self.grant = a_grant(state=GrantState.ACTIVE, view_schema_id=7)

    @contextmanager
    def read(self) -> Iterator[MemoryReader]:
        self.open += 1
        yield MemoryReader()
        self.open -= 1

    def ask(self, what: str, answer: Any) -> Any:
        assert not self.open, f"{what} with an open reader"
        self.asked.append(what)
        return answer

    def unanswered(self, *_: Any, **__: Any) -> Any:
        self.ask("broker.read", None)
        raise UnavailableError(Reason.BROKER_UNAVAILABLE, "down")

    def service(self) -> FetchService:
        grant = self.grant
        info = SimpleNamespace(topic=grant.topic, partitions=1, generation=1)
        ends = Ends(earliest=(0,), latest=(5,))
        made: Any = SimpleNamespace
        return FetchService(
            database=made(read=self.read),
            enforcer=made(admit=lambda *_: self.ask("enforcer.admit", made())),
            ledger=made(),
            broker=made(
                topic=lambda _: self.ask("broker.topic", info),
                ends=lambda _: self.ask("broker.ends", ends),
                positions_for_time=lambda *_: self.ask("broker.positions_for_time", (0,)),
                read=self.unanswered,
            ),
            attributes=made(
                grant=lambda _, wanted: (
                    made(grant=grant, row_filter=None, reference=None, in_zone=lambda actor: actor)
                    if wanted == grant.id
                    else None
                ),
                standing_of=lambda *_: Standing.ACTIVE,
            ),
            access=made(position=lambda *_: made(committed=b"")),
            views=made(schema_text=lambda *_: "{}"),
            pseudonymizer=made(),
            retractions=made(),
            tracking=made(complete=lambda *_: 0, before=lambda *_: None),
            tokens=PositionTokens(MemorySecrets(b"s" * 32).grant_key, lambda: 1),
            restored=RestoreGuard(),
            serving=ServingGuard(),
            window=0.5,
        )


@pytest.fixture(autouse=True)
def decided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("exchange.records.fetch.decide", lambda *_, **__: None)


def test_a_description_asks_the_broker_without_a_connection() -> None:
    rooms = Rooms()
    rooms.service().describe(a_connector(), CALL, rooms.grant.id)
    assert "broker.topic" in rooms.asked


def test_a_fetch_asks_the_broker_without_a_connection() -> None:
    rooms = Rooms()
    with pytest.raises(UnavailableError):
        rooms.service().fetch(a_connector(), CALL, rooms.grant.id, b"", 0, 0)
    assert rooms.asked[0] == "enforcer.admit"
    assert rooms.asked[-1] == "broker.read"


def test_a_denial_is_recorded_without_another_connection() -> None:
    rooms = Rooms()
    with pytest.raises(RefusedError):
        rooms.service().topic_of(a_connector(), CALL, "no-such-grant")
    assert rooms.asked == ["enforcer.admit"]
