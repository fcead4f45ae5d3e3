"""Exports of the log: an entry before the first row, one page in memory, an end to it where the account has ended."""

from collections.abc import Iterator
from typing import Any, cast

import pytest

from exchange.access.decision.roles import Standing
from exchange.audit.search.entry_rows import entry_row
from exchange.audit.store import EntryPlace, EntryQuery, StoredLeaf
from exchange.authorization.enforcement import Authorized
from exchange.authorization.request_context import RequestContext
from exchange.control.audit_queries import AuditQueries
from schemas.access import Action, Actor, ActorKind, Allow, Deny, Role
from schemas.errors import PoolError, Reason, RefusedError, UnavailableError
from schemas.merkle import leaf_hash

AUDITOR = Actor(kind=ActorKind.HUMAN, id="watcher", department="", role=Role.AUDITOR)
HEAD = Actor(kind=ActorKind.HUMAN, id="head", department="d-1", role=Role.SHARING_OFFICE_HEAD)
CALL = RequestContext(trace="0" * 32, client="test")
NOW = 1_000_000


class _Attributes:
    def __init__(self, log: "Log") -> None:
        self._log = log

    def standing(self, actor: Actor) -> Standing:
        return self._log.standing


class Log:
    """A log of so many entries, and what is done with it, in order."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.done: list[Any] = []
        self.asked: list[EntryQuery] = []
        self.standing = Standing.ACTIVE
        self.refuses: PoolError | None = None
        self.damaged: dict[int, bytes] = {}
        self.queries = AuditQueries(
            enforcer=cast("Any", self),
            attributes=cast("Any", _Attributes(self)),
            entries=cast("Any", self),
            log=cast("Any", self),
            own_resources=lambda _: frozenset(),
            clock=lambda: NOW,
        )

    def admit(self, actor: Actor, action: Action, resource: str, call: Any, decision: Allow | Deny) -> Authorized:
        if isinstance(decision, Deny):
            self.done.append(("denied", action, decision.reason))
            raise RefusedError(decision.reason, decision.explanation)
        return Authorized(
            pool_id="p", actor=actor, action=action, resource=resource, call=call, grant=None, clock=lambda: NOW
        )

    def record(self, authorized: Authorized, data: dict[str, Any]) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.done.append(("entry", authorized.action, data))

    def find(self, query: EntryQuery) -> list[StoredLeaf]:
        self.asked.append(query)
        self.done.append("page")
        first = self.count if query.after is None else query.after.at
        return [
            StoredLeaf(
                index=at,
                leaf=self.damaged.get(at, self.leaf(at)),
                leaf_hash=leaf_hash(self.leaf(at)),
                place=EntryPlace(at, at),
            )
            for at in range(first - 1, max(-1, first - 1 - query.limit), -1)
        ]

    @staticmethod
    def leaf(at: int) -> bytes:
        return b'{"action":"registry:catalogue:read","at":%d,"decision":"allow","id":"e-%d"}' % (at, at)

    def latest_checkpoint(self) -> None:
        return None


@pytest.fixture
def log() -> Log:
    return Log(2_500)


def export(log: Log, actor: Actor = AUDITOR, **terms: Any) -> Iterator[list[dict[str, Any]]]:
    return log.queries.export(actor, CALL, EntryQuery(**terms), form="csv")


def test_an_export_is_an_entry_before_anything_is_read_and_another_one_after_its_last_row(log: Log) -> None:
    pages = export(log, purpose="eligibility", until=NOW + 5)
    kind, action, data = log.done[0]
    assert (kind, action) == ("entry", Action.AUDIT_EXPORT)
    assert data["format"] == "csv"
    assert data["query"] == {"purpose": "eligibility", "until": NOW}
    assert log.done[1:] == ["page"], "the first page is read before the answer begins: an error is still one"
    rows = [one["entry"]["id"] for page in pages for one in page]
    assert rows == [f"e-{at}" for at in range(2_499, -1, -1)]
    assert log.done[-1] == ("entry", Action.AUDIT_EXPORT, {"digest": data["digest"], "count": 2_500, "complete": True})
    assert {query.until for query in log.asked} == {NOW}, "what comes later is not in it"


def test_a_page_is_read_when_the_one_before_has_left(log: Log) -> None:
    pages = export(log)
    for number in range(1, 4):
        next(pages)
        assert len(log.asked) == number
    assert all(query.limit == 1_000 for query in log.asked)


def test_an_export_without_an_entry_reads_nothing(log: Log) -> None:
    log.refuses = UnavailableError(Reason.DATABASE_UNAVAILABLE, "down")
    with pytest.raises(UnavailableError):
        export(log)
    assert log.asked == []


def test_an_export_that_is_broken_off_says_how_much_left(log: Log) -> None:
    pages = export(log)
    next(pages)
    next(pages)
    pages.close()  # type: ignore[attr-defined]
    assert log.done[-1][2] | {"count": 2_000, "complete": False} == log.done[-1][2]


def test_a_revoked_account_reads_no_further(log: Log) -> None:
    pages = export(log)
    next(pages)
    log.standing = Standing.REVOKED
    with pytest.raises(RefusedError) as caught:
        next(pages)
    assert caught.value.reason is Reason.CERTIFICATE_REVOKED
    assert log.done[-1][2] | {"count": 1_000, "complete": False} == log.done[-1][2]


def test_a_department_exports_its_own_entries_alone(log: Log) -> None:
    list(export(log, HEAD))
    assert {query.party.department for query in log.asked if query.party} == {"d-1"}
    assert all(query.party for query in log.asked)
    with pytest.raises(RefusedError) as caught:
        log.queries.export(HEAD, CALL, EntryQuery(), form="csv", party="d-2")
    assert caught.value.reason is Reason.OTHER_DEPARTMENT
    operator = Actor(kind=ActorKind.HUMAN, id="op", department="", role=Role.OPERATOR)
    with pytest.raises(RefusedError):
        export(log, operator)


def test_a_search_for_one_entry_has_an_entry_of_its_own(log: Log) -> None:
    log.queries.search(AUDITOR, CALL, EntryQuery(entry="01935f1e-0000-7000-8000-0000000000aa"))
    assert [(kind, action) for kind, action, *_ in log.done if kind == "entry"] == [("entry", Action.AUDIT_READ)]


@pytest.mark.parametrize("leaf", [b"not json", b"[]", b"{}", b'{"at":1}', Log.leaf(7), b"[" * 100_000])
def test_a_damaged_entry_fails_neither_the_search_nor_the_export(leaf: bytes) -> None:
    log = Log(3)
    log.damaged[1] = leaf
    pages = list(log.queries.export(AUDITOR, CALL, EntryQuery(limit=10), form="csv"))
    shown = [entry_row(document) for page in pages for document in page]
    assert [(row["decision"], row["entry"]) for row in shown] == [("allow", "e-2"), ("damaged", ""), ("allow", "e-0")]
    assert pages[0][1]["withheld"] == ["entry"]
