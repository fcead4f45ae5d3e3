"""Lists behind the pool's gate: one entry where a restricted subject is named, one question for whose they are."""

import json
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import pytest
from fastapi import Request
from fastapi.testclient import TestClient

from exchange.access.decision.roles import Standing
from exchange.api.registry.enforcement import RegistryAccessControl
from exchange.authorization.attribute_sources import IdentityAttributes
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.schema_access import SchemaAccess
from registry.database.unit_of_work import MemoryDatabase, Reader, UnitOfWork
from registry.directory.catalogue import Catalogue
from registry.directory.departments import Departments
from registry.directory.memory import MemoryCatalogue, MemoryDepartments
from registry.directory.model import CatalogueEntry, Department, GovernmentLevel, ShareType
from registry.governance.approvals import Approvals, MemoryApprovals
from registry.governance.subject_rights import Profile, Right, Rights
from registry.rest.app import create
from registry.rest.governance import GovernanceHandlers
from registry.subjects.model import Content, SchemaReference
from schemas.access import Action, Actor, ActorKind, Level, Role
from schemas.audit import AuditEntry
from schemas.errors import Reason, UnavailableError
from schemas.names import Topic
from tests.kit.cases.registry import AT, USCC, Committing, Subjects, memory_store

NOW = 1_795_000_000_000_000
OTHER = "0195-other"
READABLE = (Right.parse("department:0195-0000", ["read"], ["free*", ":.tax:*"]),)


class Written:
    """Keeps what the gate writes, unless it is told to fail."""

    def __init__(self) -> None:
        self.entries: list[AuditEntry] = []
        self.full = False

    def write(self, work: UnitOfWork, entries: Sequence[AuditEntry], *, last: bool = False) -> list[bytes]:
        if self.full:
            raise UnavailableError(Reason.DISK_FULL, "no room", retry_after=1)
        self.entries += entries
        return [b"" for _ in entries]


class Known:
    def standing_now(self, actor: Actor) -> Standing:
        return Standing.ACTIVE


class Counted(MemoryCatalogue):
    questions = 0

    def get(self, reader: Reader, topic: Topic) -> CatalogueEntry | None:
        self.questions += 1
        return super().get(reader, topic)

    def all(self, reader: Reader) -> list[CatalogueEntry]:
        self.questions += 1
        return super().all(reader)


class Room:
    """A registry with subjects of two departments, of which those of the name credit are restricted."""

    def __init__(self, profile: Profile) -> None:
        self.written = Written()
        self.store = Counted()
        departments = Departments(MemoryDepartments(), clock=lambda: AT, new_id=lambda: "0195-0000")
        database = MemoryDatabase()
        self.police = Committing(departments, database).register(
            uscc=USCC, name="某市公安局", short_name="公安局", level=GovernmentLevel.CITY, division_code="520100"
        )
        subjects = memory_store()
        self.subjects = Subjects(subjects)
        for number in range(1, 31):
            entry = self.entry(f"cards{number:02}.v1", self.police, f"101001/{number:06}")
            self.put(entry.subject, 2)
        for name in ("credit.v1", "credit-more.v1"):
            self.put(self.entry(name, self.police, f"101002/{len(name):06}").subject)
        for name in ("free", ":.tax:credit", ":.tax:open"):
            self.put(name)
        access = Enforcer(database, self.written, pool_id="pool", clock=lambda: NOW)
        rights = Rights(profile=profile, restricted=("credit*", ":.tax:credit*"), rights=READABLE)
        catalogue = Catalogue(self.store, departments, clock=lambda: AT)
        self.access = RegistryAccessControl(
            access,
            database,
            cast("IdentityAttributes", Known()),
            SchemaAccess(database, catalogue, None, rights=rights),
            dev=False,
        )
        approvals = Approvals(
            MemoryApprovals(),
            clock=lambda: AT,
            new_id=lambda: "0195-approval",
            persons=lambda _, names: {name: name for name in names},
        )
        Committing(approvals, database).ask(
            self.actor(), subject="credit.v1-value", fingerprint=b"x" * 32, text="{}", findings=["a"], reason="b"
        )
        more = partial(GovernanceHandlers, approvals=approvals, grants=lambda *_: [])
        self.http = TestClient(
            create(self.subjects.services, self.access, database, identify=self.identify, more=[more])
        )
        self.store.questions = 0

    def entry(self, topic: str, provider: Department, code: str) -> CatalogueEntry:
        made = CatalogueEntry(
            topic=Topic.parse(topic),
            title="卡",
            provider=provider.id,
            code=code,
            share_type=ShareType.CONDITIONAL,
            share_scope="各级政务部门",
            use_purpose="履行法定职责",
            level=Level.G4,
        )
        Committing(self.store, MemoryDatabase()).save(made, AT)
        return made

    def put(self, subject: str, versions: int = 1) -> None:
        for version in range(versions):
            fields = [{"name": f"f{at}", "type": "int", "default": 0, "tags": ["T"]} for at in range(version + 1)]
            self.subjects.register(subject, Content(text=json.dumps({"type": "record", "name": "R", "fields": fields})))

    def actor(self, department: str | None = None) -> Actor:
        department = self.police.id if department is None else department
        return Actor(kind=ActorKind.HUMAN, id="li", department=department, role=Role.CATALOGUE_EDITOR)

    def identify(self, request: Request) -> Actor:
        return self.actor(request.headers.get("authorization"))

    def get(self, path: str, department: str | None = None) -> Any:
        answer = self.http.get(path, headers={"authorization": department} if department else {})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def told(self) -> list[tuple[Action | str, str, Any]]:
        return [(entry.action, entry.resource, dict(entry.data)) for entry in self.written.entries]


@pytest.fixture(params=[Profile.CLOSED, Profile.CATALOGUE])
def room(request: pytest.FixtureRequest) -> Room:
    return Room(request.param)


ID = 1  # of the content that every subject has
LISTS = {
    "/subjects": 3,
    "/subjects?deleted=true": 3,
    "/schemas": 3,
    "/schemas?latestOnly=true": 3,
    f"/schemas/ids/{ID}/subjects": 3,
    f"/schemas/ids/{ID}/versions": 3,
    f"/schemas/ids/{ID}?includeSubjects=true": 3,
    "/contexts": 1,
    "/governance/fields": 3,
    "/governance/fields?tag=T&subjectPrefix=credit": 2,
    "/subjects?subjectPrefix=credit&limit=1": 1,
    "/subjects?subjectPrefix=credit&offset=1": 1,
    "/schemas?subjectPrefix=credit&limit=1": 1,
    f"/schemas/ids/{ID}/versions?subject=credit.v1-value": 1,
    "/approvals": 1,
}


@pytest.mark.parametrize("path", LISTS)
def test_a_list_that_names_restricted_subjects_leaves_one_entry_with_their_number(path: str) -> None:
    room = Room(Profile.CATALOGUE)
    assert room.get(path)
    assert room.told() == [(Action.SCHEMA_READ, "", {"restricted": LISTS[path]})]
    assert room.written.entries[0].actor == room.actor()
    assert "credit" not in json.dumps(dict(room.written.entries[0].data))


@pytest.mark.parametrize(
    "path",
    ["/subjects?subjectPrefix=free", "/subjects?offset=1&limit=1", "/schemas?subjectPrefix=cards", "/contexts?limit=1"],
)
def test_a_list_that_names_none_leaves_none(room: Room, path: str) -> None:
    assert room.get(path)
    assert room.told() == []


def test_who_may_not_see_them_is_shown_none_and_leaves_none() -> None:
    room = Room(Profile.CATALOGUE)
    for path in ("/subjects", "/schemas", f"/schemas/ids/{ID}/subjects", "/governance/fields"):
        found = json.dumps(room.get(path, OTHER))
        assert "cards01" in found
        assert "credit" not in found
    assert room.told() == []


def test_a_list_that_cannot_be_recorded_is_not_given(room: Room) -> None:
    room.written.full = True
    for path in ("/subjects", "/schemas", "/contexts", "/governance/fields"):
        answer = room.http.get(path)
        assert answer.status_code == 503, path
        assert "credit" not in answer.text
    assert room.get("/subjects?subjectPrefix=free") == ["free"]


@pytest.mark.parametrize("path", [path for path in LISTS if "ids" not in path])
def test_whose_subjects_they_are_is_asked_once_a_list(room: Room, path: str) -> None:
    room.get(path)
    assert room.store.questions <= 1


def test_fields_of_a_restricted_subject_are_told_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    room = Room(Profile.CATALOGUE)
    outer = json.dumps({"type": "record", "name": "Outer", "fields": [{"name": "inner", "type": "R"}]})
    referring = Content(text=outer, references=(SchemaReference("R", "credit.v1-value", 1),))
    room.subjects.register("through", referring)
    paths = ("/governance/subjects/through/versions/1", "/governance/fields?subjectPrefix=through")
    for path in paths:
        assert "inner.f0" in json.dumps(room.get(path))
        assert room.told()[-1] in [
            (Action.SCHEMA_READ, "credit.v1-value", {}),
            (Action.SCHEMA_READ, "", {"restricted": 1}),
        ]
    assert len(room.told()) == len(paths)
    assert room.get(paths[1], OTHER) == []
    as_other = {"authorization": OTHER}
    assert room.http.get(paths[0], headers=as_other).status_code == 403
    bodies: dict[str, dict[str, Any]] = {
        "through": {"schema": '{"type": "record", "name": "Else", "fields": []}'},
        "free": {"schema": outer.replace('"R"', '"Outer"').replace('"Outer", "f', '"Else", "f')},
    }
    bodies["free"]["references"] = [{"name": "o", "subject": "through", "version": 1}]
    for subject, body in bodies.items():
        path = f"/governance/subjects/{subject}/diff"
        assert room.http.post(path, json=body, headers=as_other).status_code == 403
        answer = room.http.post(path, json=body)
        assert answer.status_code == 200, answer.text
        assert "inner" in answer.text
    own = [entry.resource for entry in room.written.entries if entry.actor == room.actor()]
    assert own == ["credit.v1-value", "", "credit.v1-value", "credit.v1-value"]


def test_where_everything_is_open_nobody_is_asked() -> None:
    room = Room(Profile.CATALOGUE)
    room.get("/subjects?subjectPrefix=cards")
    room.get("/schemas?subjectPrefix=cards", OTHER)
    assert room.store.questions == 0


def test_a_closed_registry_shows_a_department_its_own_and_what_it_has_a_right_to() -> None:
    room = Room(Profile.CLOSED)
    own = room.get("/subjects")
    assert len(own) == 30 + 2 + 3
    assert room.get("/subjects", OTHER) == []
    assert room.get("/contexts", OTHER) == ["."]
    assert room.get("/contexts") == [".", ".tax"]


def test_a_closed_subject_that_had_a_schema_first_does_not_close_its_id_to_all() -> None:
    room = Room(Profile.CATALOGUE)
    content = Content(text='{"type": "array", "items": "double"}')
    schema_id = room.subjects.register("credit-first", content).schema_id
    for path in (f"/schemas/ids/{schema_id}", f"/schemas/ids/{schema_id}/schema"):
        assert room.http.get(path, headers={"authorization": OTHER}).status_code == 403
    room.subjects.register("open-one", content)
    room.written.entries.clear()
    for path in (f"/schemas/ids/{schema_id}", f"/schemas/ids/{schema_id}/schema"):
        assert room.get(path, OTHER)
    assert room.told() == []
    room.subjects.delete("open-one")
    assert room.http.get(f"/schemas/ids/{schema_id}", headers={"authorization": OTHER}).status_code == 403


def test_a_refused_read_by_id_asks_for_owners_once_however_many_subjects_have_it() -> None:
    room = Room(Profile.CLOSED)
    assert room.http.get(f"/schemas/ids/{ID}", headers={"authorization": OTHER}).status_code == 403
    assert room.store.questions <= 3


def test_a_view_that_had_a_schema_first_does_not_close_its_id_to_all() -> None:
    room = Room(Profile.CATALOGUE)
    schema_id = room.subjects.register_view("0195-grant", 1, '{"type": "array", "items": "float"}')
    room.subjects.register("credit-first", Content(text='{"type": "array", "items": "float"}'))
    room.subjects.register("open-one", Content(text='{"type": "array", "items": "float"}'))
    rights = Rights(profile=Profile.CATALOGUE, restricted=("credit*", "view.*"), rights=READABLE)
    room.access._schemas.rights = rights
    assert room.get(f"/schemas/ids/{schema_id}", OTHER)
    assert room.told() == []


def test_a_recorded_read_that_needs_other_subjects_opens_no_reader_within_a_transaction(room: Room) -> None:
    """`tests.kit.lock_order` would fail it. Each restricted subject that is read has its entry."""
    body = {
        "schema": json.dumps({"type": "record", "name": "Other", "fields": [{"name": "c", "type": "string"}]}),
        "references": [{"name": "C", "subject": "credit-more.v1-value", "version": 1}],
    }
    answer = room.http.post("/subjects/credit.v1-value", json=body)
    assert answer.status_code == 404, answer.json()
    read = [one.resource for one in room.written.entries if "failed" not in one.data]
    assert sorted(read) == ["credit-more.v1-value", "credit.v1-value"]
    assert [one.data["failed"] for one in room.written.entries if "failed" in one.data] == ["schema_unknown"]


def test_a_recorded_read_without_its_entry_gives_nothing(room: Room) -> None:
    room.written.full = True
    answer = room.http.get("/subjects/credit.v1-value/versions/1")
    assert answer.status_code == 503
    assert "schema" not in answer.json()
