"""The registry served over HTTP by uvicorn on a real PostgreSQL, behind an access control that records."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import quote

import httpx
from confluent_kafka.schema_registry import SchemaRegistryClient
from fastapi import Request

from registry.database.unit_of_work import Database, MemoryDatabase, Reader, UnitOfWork
from schemas.access import Action, Actor, ActorKind, Role
from schemas.canonical import Json
from schemas.errors import Reason, RefusedError
from tests.kit.cases.registry import Subjects

Confluent = Callable[[], SchemaRegistryClient]
V1 = "application/vnd.schemaregistry.v1+json"
INT, LONG, TEXT = '"int"', '"long"', '"string"'


class Note:
    def __init__(self) -> None:
        self.facts: dict[str, Json] = {}

    def note(self, **facts: Json) -> None:
        self.facts.update(facts)


@dataclass
class Shown:
    hidden: str
    named: set[str] = field(default_factory=set)

    def visible(self, subject: str) -> bool:
        return not subject.startswith(self.hidden)

    def record(self, subjects: Iterable[str]) -> None:
        self.named.update(subjects)


@dataclass
class RecordingAccessControl:
    """Allows all but what is denied, and keeps what was asked."""

    database: Database = field(default_factory=MemoryDatabase)
    denied: set[Action] = field(default_factory=set)
    hidden: str = " "  # with which the names of subjects begin that nobody sees
    entries: list[tuple[str, Action, str, dict[str, Json]]] = field(default_factory=list)
    shown: list[list[str]] = field(default_factory=list)  # what each list named

    @contextmanager
    def act(
        self, actor: Actor, action: Action, resource: str, texts: Mapping[str, str] | None = None
    ) -> Iterator[tuple[UnitOfWork, Note]]:
        self._refuse(actor, action, resource)
        note = Note()
        with self.database.begin() as work:
            yield work, note
        self.entries.append((actor.id, action, resource, note.facts))

    @contextmanager
    def read(self, actor: Actor, action: Action, resource: str) -> Iterator[Reader]:
        self._refuse(actor, action, resource)
        with self.database.read() as reader:
            yield reader
        self.entries.append((actor.id, action, resource, {}))

    def _refuse(self, actor: Actor, action: Action, resource: str) -> None:
        if action in self.denied or (action is Action.SCHEMA_READ and resource.startswith(self.hidden)):
            raise RefusedError(Reason.ROLE_MISSING, f"the role {actor.role} may not {action}")

    @contextmanager
    def list(self, actor: Actor, *, admitted: bool = False) -> Iterator["Shown"]:
        shown = Shown(self.hidden)
        if admitted:
            yield shown
        else:
            with self.read(actor, Action.SCHEMA_READ, ""):
                yield shown
        self.shown.append(sorted(shown.named))

    def readable_subject(self, actor: Actor, origin: str, others: Callable[[], Iterable[str]]) -> str:
        return origin

    def permits_from_cache(self, actor: Actor, action: Action, resource: str) -> bool:
        return False  # so that each read is seen here


def identify(request: Request) -> Actor:
    if request.headers.get("authorization") == "Bearer wrong":
        raise RefusedError(Reason.TOKEN_INVALID, "the token is not known; ask for a new one")
    return Actor(kind=ActorKind.MACHINE, id="tester", department="", role=Role.CONNECTOR)


@dataclass
class World:
    url: str
    subjects: Subjects
    access: RecordingAccessControl
    http: httpx.Client


def put(world: World, subject: str, schema: str) -> httpx.Response:
    return world.http.post(f"/subjects/{quote(subject, safe='')}/versions", json={"schema": schema})


def record(*fields: str) -> str:
    listed = [{"name": name, "type": "string", "default": ""} for name in fields]
    return json.dumps({"type": "record", "name": "R", "fields": listed})
