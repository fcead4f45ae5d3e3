"""Look-ups by id behind a token: answered from memory for half a second, and decided and recorded as ever."""

import itertools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from fastapi.testclient import TestClient

from exchange.access.decision.roles import Standing
from exchange.api.registry.enforcement import RegistryAccessControl
from exchange.api.registry.identification import RegistryIdentification
from exchange.api.registry.ttl_cache import TTL
from exchange.authorization.attribute_sources import IdentityAttributes
from exchange.authorization.authentications import Authentications, Interface, Origin
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.schema_access import SchemaAccess
from exchange.identity.failure_limiter import FailureLimiter
from exchange.identity.store import MemoryIdentityStore
from exchange.identity.tokens import Users, digest_of, new_token
from exchange.pool import Pool
from registry.database.unit_of_work import MemoryDatabase, Reader, UnitOfWork
from registry.directory.catalogue import Catalogue
from registry.directory.departments import Departments
from registry.directory.memory import MemoryCatalogue, MemoryDepartments
from registry.directory.model import GovernmentLevel
from registry.governance.subject_rights import Profile, Right, Rights
from registry.rest.app import create
from registry.subjects.model import Content
from schemas.access import Action, Actor, Role
from schemas.audit import AuditEntry
from schemas.errors import Reason, RefusedError, UnavailableError
from tests.kit.cases.registry import AT, USCC, Subjects, memory_store

TEXT = '"string"'
RIGHTS = (Right.parse("role:catalogue_editor", ["read_by_id"], ["credit*"]),)


class Counting(MemoryIdentityStore):
    """Counts the questions for an account, and may be away."""

    questions = 0
    away = False

    def account_of(self, reader: Reader, digest: bytes) -> Any:
        self.questions += 1
        if self.away:
            raise UnavailableError(Reason.DATABASE_UNAVAILABLE, "away", retry_after=1)
        return super().account_of(reader, digest)


class Registry:
    """A pool's registry on memory stores, with a clock that is moved by hand."""

    def __init__(self, profile: Profile = Profile.IDS) -> None:
        self.now = 100.0
        self.entries: list[AuditEntry] = []
        self.database = MemoryDatabase()
        self.store = Counting()
        self.users = Users(self.store)
        ids = (f"0195-{number:04}" for number in itertools.count())
        self.departments = Departments(MemoryDepartments(), clock=lambda: AT, new_id=lambda: next(ids))
        catalogue = Catalogue(MemoryCatalogue(), self.departments, clock=lambda: AT)
        with self.database.begin() as work:
            self.office = self.departments.register(
                work,
                uscc=USCC,
                name="某市公安局",
                short_name="公安局",
                level=GovernmentLevel.CITY,
                division_code="520100",
            )
            self.token = self.add(work, "li", Role.CATALOGUE_EDITOR, self.office.id)
            self.operator = self.add(work, "op", Role.OPERATOR, "")
        self.standing_questions = 0
        self.access = RegistryAccessControl(
            Enforcer(self.database, self, pool_id="pool", clock=lambda: 1_795_000_000_000_000),
            self.database,
            cast("IdentityAttributes", self),
            SchemaAccess(
                self.database, catalogue, None, rights=Rights(profile=profile, restricted=("credit*",), rights=RIGHTS)
            ),
            dev=False,
            clock=self.clock,
        )
        self.authentications = Authentications(
            self.database,
            self,
            pool_id="pool",
            clock=lambda: 1_795_000_000_000_000,
            limiter=FailureLimiter(self.clock),
        )
        self.identification = RegistryIdentification(
            cast(
                "Pool",
                SimpleNamespace(
                    authenticate=self.authenticate,
                    identify=None,
                    authentications=self.authentications,
                    enforcer=self.access._enforcer,
                ),
            ),
            dev=False,
            clock=self.clock,
        )
        self.subjects = Subjects(memory_store())
        self.http = TestClient(
            create(
                self.subjects.services,
                self.access,
                self.database,
                identify=self.identification.identify,
                identify_from_cache=self.identification.from_cache,
            )
        )

    def add(self, work: UnitOfWork, name: str, role: Role, department: str) -> str:
        token = new_token()
        self.users.add(
            work,
            name=name,
            role=role,
            department=department,
            person=name,
            digest=digest_of(token),
            by="root",
            at=AT,
        )
        return token

    def clock(self) -> float:
        return self.now

    def write(self, work: UnitOfWork, entries: Sequence[AuditEntry], *, last: bool = False) -> list[bytes]:
        self.entries += entries
        return [b"" for _ in entries]

    def authenticate(self, token: str, origin: Origin) -> Actor:
        assert origin.interface is Interface.REGISTRY
        with self.database.read() as reader:
            actor = self.users.authenticate(reader, token, AT)
        if origin.account and origin.account != actor.id:
            raise RefusedError(Reason.TOKEN_INVALID, "another account's")
        return actor

    def standing_now(self, actor: Actor) -> Standing:
        self.standing_questions += 1
        with self.database.read() as reader:
            return IdentityAttributes(
                self.database, cast("Any", None), self.departments, self.users, now=lambda: AT
            ).standing(reader, actor)

    def register(self, subject: str, text: str = '"int"') -> int:
        return int(self.subjects.register(subject, Content(text=text)).schema_id)

    def get(self, path: str, token: str | None = None, **headers: str) -> httpx.Response:
        return self.http.get(path, headers={"authorization": f"Bearer {token or self.token}"} | headers)

    def asked(self) -> tuple[int, int]:
        """Return how often accounts and standings were asked for since the last time."""
        found = self.store.questions, self.standing_questions
        self.store.questions = self.standing_questions = 0
        return found


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def path(registry: Registry) -> str:
    """A look-up by id that has been answered twice: the second answer came from memory."""
    path = f"/schemas/ids/{registry.register('free')}"
    first = registry.get(path)
    assert (first.status_code, registry.asked()) == (200, (1, 1))
    second = registry.get(path, **{"x-request-id": "mine"})
    assert registry.asked() == (0, 0)
    assert second.content == first.content
    assert second.headers["x-request-id"] == "mine"
    for headers in (first.headers, second.headers):
        del headers["x-request-id"]
    assert second.headers == first.headers
    return path


def test_an_answer_from_memory_is_the_handler_s_own(registry: Registry, path: str) -> None:
    for query in ("?format=", "?fetchMaxId=false", "?subject=other-value", "?reference_format=qualified"):
        assert registry.get(path + query).json() == {"schema": '"int"'}
    assert registry.asked() == (0, 0)
    etag = registry.get(path).headers["etag"]
    same = registry.get(path, **{"if-none-match": etag})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
    assert registry.get(path, **{"if-none-match": '"0"'}).status_code == 200
    assert registry.get(path, accept="application/json").headers["content-type"] == "application/json"
    assert registry.asked() == (0, 0)
    for query in ("?fetchMaxId=true", "?includeSubjects=true", "?findTags=*", "?format=resolved"):
        assert registry.get(path + query).status_code == 200
        assert registry.asked() >= (1, 1), query
    for query in ("?fetchMaxId=x", "?unknown=1", "?format=serialized", "?subject=a%00b"):
        assert registry.get(path + query).status_code == 422


def test_a_busy_account_is_asked_for_by_one_caller_in_half_a_time(registry: Registry, path: str) -> None:
    for _ in range(4):
        registry.now += TTL / 2
        assert [registry.get(path).status_code for _ in range(5)] == [200] * 5
        assert registry.asked() == (1, 1)


def test_a_revoked_token_is_refused_when_its_time_is_over(registry: Registry, path: str) -> None:
    with registry.database.begin() as work:
        registry.users.revoke(work, "li", AT)
    registry.now += TTL - 0.001
    registry.get(path)  # asks, since it is time
    for _ in range(3):
        answer = registry.get(path)
        assert (answer.status_code, answer.json()["error_code"]) == (401, 40101), "a refusal that was met holds at once"
    registry.now += 100
    assert registry.get(path).status_code == 401


def test_a_revoked_token_is_refused_after_half_a_second_whatever_happens(registry: Registry, path: str) -> None:
    with registry.database.begin() as work:
        registry.users.revoke(work, "li", AT)
    assert registry.get(path).status_code == 200
    registry.store.away = True
    registry.now += TTL / 2
    assert {registry.get(path).status_code for _ in range(5)} == {503, 200}
    registry.now += TTL / 2
    assert registry.get(path).status_code == 503
    registry.store.away = False
    assert registry.get(path).status_code == 401


def test_a_token_that_was_replaced_is_refused_and_the_new_one_taken(registry: Registry, path: str) -> None:
    with registry.database.begin() as work:
        token = new_token()
        registry.users.rotate(work, "li", digest_of(token), AT)
    assert registry.get(path, token).status_code == 200
    registry.now += TTL
    assert registry.get(path).status_code == 401
    assert registry.get(path, token).status_code == 200


def test_an_abolished_department_s_account_is_refused(registry: Registry, path: str) -> None:
    with registry.database.begin() as work:
        registry.departments.abolish(work, registry.office.id, version=registry.office.version)
    registry.now += TTL
    for _ in range(3):
        answer = registry.get(path)
        assert (answer.status_code, answer.json()["error_code"]) == (403, 40301)


def test_a_caller_is_identified_before_anything_else(registry: Registry, path: str) -> None:
    for headers in ({}, {"authorization": "Bearer pool_wrong"}, {"authorization": registry.token}):
        for at in (path, "/schemas/ids/99"):
            assert registry.http.get(at, headers=headers).status_code == 401
    for name, status in (("wang", 401), ("li", 200), ("li", 200), ("wang", 401), ("", 200)):
        assert registry.http.get(path, auth=(name, registry.token)).status_code == status


def test_no_token_stays_in_the_cache(registry: Registry, path: str) -> None:
    (key,) = registry.identification._accounts._entries
    assert len(key) == 32
    assert registry.token not in repr(registry.identification._accounts._entries)


def test_a_restricted_subject_is_decided_and_recorded_each_time(registry: Registry) -> None:
    path = f"/schemas/ids/{registry.register('credit')}"
    for count in range(1, 4):
        assert registry.get(path).status_code == 200
        assert [(one.action, one.resource) for one in registry.entries] == [
            (Action.SCHEMA_READ_BY_ID, "credit")
        ] * count
        assert registry.asked() == (1, 1)
    denied = [registry.get(path, registry.operator).status_code for _ in range(3)]
    assert denied == [403] * 3


def test_a_view_s_schema_is_recorded_each_time() -> None:
    registry = Registry(Profile.CATALOGUE)
    schema_id = registry.subjects.register_view("0195-grant", 1, '"long"')
    path = f"/schemas/ids/{schema_id}"
    with registry.database.begin() as work:
        authority = registry.add(work, "wu", Role.DATA_AUTHORITY, "")
    for _ in range(3):
        assert registry.get(path, authority).status_code == 200
        assert registry.asked() == (1, 1)
    assert [one.action for one in registry.entries] == [Action.SCHEMA_READ_BY_ID] * 3
    assert registry.get(path).status_code == 403, "the editor's department is no party of that grant"
    assert registry.entries[-1].reason is Reason.RIGHT_MISSING
    assert all(one.resource.startswith("view.") for one in registry.entries)


def test_what_a_profile_closes_stays_closed() -> None:
    registry = Registry(Profile.CLOSED)
    path = f"/schemas/ids/{registry.register('free')}"
    own = f"/schemas/ids/{registry.register(f':.{registry.office.id}:own', TEXT)}"
    for _ in range(3):
        assert registry.get(path).status_code == 403
        assert registry.get(own).status_code == 200
        assert registry.get(own, registry.operator).status_code == 403


def test_other_calls_ask_the_database_each_time(registry: Registry, path: str) -> None:
    for other in ("/subjects", f"{path}/schema", "/schemas/ids/99"):
        registry.get(other)
        assert registry.asked()[0] == 1, other
    with registry.database.begin() as work:
        registry.users.revoke(work, "li", AT)
    assert registry.get("/subjects").status_code == 401
