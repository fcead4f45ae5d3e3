"""Who reads which schema: what one interface refuses, no other gives, and each refusal is in the log.

The profile is closed. A provider publishes a resource, a consumer has a grant on two of its fields, and a third
department, with a connector and with accounts of its own, tries to read both schemas by every way there is.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest

from exchange.client import Identity, PoolClient
from registry.client.admin import RegistryAdminClient
from registry.subjects.versions import view_subject
from schemas import library
from schemas.errors import InvalidError, PoolError, Reason, RefusedError
from schemas.names import Topic
from tests.kit.world.world import Office, World

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

TOPIC = Topic.parse("population.v1")
CLOSED = '[registry]\nprofile = "closed"\n'
FIELDS = ("id_number", "no_such_field")
READS = {"registry:schema:read", "registry:schema:read_by_id"}


@dataclass
class Party:
    """A department's connector, on both interfaces, and its security officer's account at the registry."""

    office: Office
    grpc: PoolClient
    rest: RegistryAdminClient
    account: RegistryAdminClient


@dataclass
class Pool:
    world: World
    parties: dict[str, Party]
    grant: str
    writer: int  # schema id of the resource
    view: int  # … and of what the grant delivers
    view_subject: str
    guid: str  # of the view

    def rest(self, **how: Any) -> RegistryAdminClient:
        url, authority = f"https://{self.world.addresses['registry']}", self.world.data / "ca" / "authority.crt"
        return RegistryAdminClient(url, authority=authority, **how)

    def denials(self, connector: str) -> list[tuple[str, str, str]]:
        found = self.world.root.get("/audit/entries", {"decision": "deny", "limit": 1000})
        entries = [one["entry"] for one in found]
        return [
            (entry["action"], entry["resource"], entry["reason"])
            for entry in entries
            if entry["actor"]["id"] == connector and entry["action"] in READS
        ]


def paths(pool: Pool) -> dict[str, str]:
    """Return every read of the two schemas over REST, by what it reads."""
    view, writer = quote(pool.view_subject, safe=""), f"{TOPIC}-value"
    made = {f"{name} of the view": f"/schemas/ids/{pool.view}{path}" for name, path in BY_ID.items()}
    made |= {f"{name} of the resource": f"/schemas/ids/{pool.writer}{path}" for name, path in BY_ID.items()}
    for what, subject in (("view", view), ("resource", writer)):
        made |= {f"{name} of the {what}": path.format(subject) for name, path in BY_SUBJECT.items()}
    return made | {
        "guid of the view": f"/schemas/guids/{pool.guid}",
        "ids of the guid": f"/schemas/guids/{pool.guid}/ids",
    }


BY_ID = {"id": "", "text": "/schema", "subjects": "/subjects", "versions by id": "/versions"}
BY_SUBJECT = {
    "versions": "/subjects/{}/versions",
    "latest": "/subjects/{}/versions/latest",
    "latest text": "/subjects/{}/versions/latest/schema",
    "referrers": "/subjects/{}/versions/1/referencedby",
    "classification": "/governance/subjects/{}/versions/1",
    "grants": "/governance/subjects/{}/grants",
}


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with World.start(CLOSED) as world:
        provider, consumer, other = map(world.department, ("公安局", "人社局", "城管局"))
        provider.offer(str(TOPIC), library.text("population"))
        grant = consumer.request(str(TOPIC), ["id_number", "full_name"])
        provider.approve(grant)
        made = Pool(world, {}, grant, 0, 0, "", "")
        identities: dict[str, Identity] = {}
        for name, office in (("provider", provider), ("consumer", consumer), ("other", other)):
            identities[name] = office.enrol(name)
            folder = world.folder / "identities" / office.id / name
            officer = office.account("security_officer")
            made.parties[name] = Party(
                office,
                world.client(identities[name]),
                made.rest(certificate=(folder / "tls.crt", folder / "tls.key")),
                made.rest(token=officer._headers["authorization"].removeprefix("Bearer ")),
            )
        made.writer = made.parties["provider"].grpc.schema(TOPIC)[0]
        terms = made.parties["consumer"].grpc.describe(grant)
        made.view, made.view_subject = terms.schema_id, view_subject(grant, terms.version - 1)  # the approved one
        root = made.rest(token=world.root._headers["authorization"].removeprefix("Bearer "))
        root._http.headers["confluent-accept-unknown-properties"] = "true"
        made.guid = root.get(f"/subjects/{quote(made.view_subject, safe='')}/versions/latest")["guid"]
        yield made
        for party in made.parties.values():
            party.grpc.close()


def refused(call: Callable[[], object]) -> Reason:
    with pytest.raises(RefusedError) as caught:
        call()
    return caught.value.reason


@pytest.mark.parametrize("which", ["topic", "writer", "view"])
def test_a_stranger_s_connector_is_refused_over_grpc_with_an_entry(pool: Pool, which: str) -> None:
    stranger = pool.parties["other"].grpc
    calls: dict[str, tuple[Callable[[], object], str]] = {
        "topic": (lambda: stranger.schema(TOPIC), TOPIC.subject),
        "writer": (lambda: stranger.schema(schema_id=pool.writer), TOPIC.subject),
        "view": (lambda: stranger.schema(schema_id=pool.view), pool.view_subject),
    }
    call, subject = calls[which]
    assert refused(call) is Reason.RIGHT_MISSING
    assert subject in {resource for _, resource, reason in pool.denials("other") if reason == Reason.RIGHT_MISSING}


@pytest.mark.parametrize("caller", ["connector", "account"])
def test_a_stranger_is_refused_by_every_path_over_rest(pool: Pool, caller: str) -> None:
    party = pool.parties["other"]
    rest = party.rest if caller == "connector" else party.account
    given = []
    for name, path in paths(pool).items():
        for _ in range(2):  # the second time, an answer to somebody else may be cached
            pool.parties["consumer"].rest.get(f"/schemas/ids/{pool.view}")
            try:
                rest.get(path)
            except RefusedError:
                continue
            given.append(name)
    assert given == []


def test_a_connector_gets_the_same_from_both_interfaces(pool: Pool) -> None:
    """Whoever may: a provider its resource and what is delivered of it, a consumer what is delivered to it."""

    def outcome(call: Callable[[], object]) -> str:
        try:
            call()
        except PoolError as error:
            return str(error.reason)
        return "given"

    outcomes = {}
    for name, party in pool.parties.items():
        for what, schema_id in (("writer", pool.writer), ("view", pool.view)):
            over_grpc = outcome(lambda: party.grpc.schema(schema_id=schema_id))  # noqa: B023 - called at once
            over_rest = outcome(lambda: party.rest.get(f"/schemas/ids/{schema_id}"))  # noqa: B023
            outcomes[name, what] = over_grpc == "given"
            assert (over_grpc == "given") == (over_rest == "given"), (name, what, over_grpc, over_rest)
    assert outcomes == {
        ("provider", "writer"): True,
        ("provider", "view"): True,
        ("consumer", "writer"): False,
        ("consumer", "view"): True,
        ("other", "writer"): False,
        ("other", "view"): False,
    }


def test_a_consumer_reads_its_view_by_subject_and_each_read_is_an_entry(pool: Pool) -> None:
    def entries() -> int:
        found = pool.world.root.get("/audit/entries", {"resource": pool.view_subject, "limit": 1000})
        return sum(one["entry"]["decision"] == "allow" for one in found)

    before, consumer = entries(), pool.parties["consumer"]
    text = consumer.rest.get(f"/subjects/{quote(pool.view_subject, safe='')}/versions/latest")["schema"]
    assert [field["name"] for field in json.loads(text)["fields"]] == ["id_number", "full_name"]
    assert consumer.grpc.schema(schema_id=pool.view)[1]
    assert entries() == before + 2


@pytest.mark.parametrize("role", ["catalogue_editor", "security_officer", "operator"])
def test_a_request_tells_no_field_of_a_closed_schema_to_who_may_not_ask(pool: Pool, role: str) -> None:
    """An answer that differs for fields that are there would read the schema, name by name, without an entry."""
    other = pool.parties["other"].office
    account = other.account(role) if role != "operator" else pool.world.account("asking-operator", role)
    terms = {
        "topic": str(TOPIC),
        "purpose": "eligibility",
        "legal_basis": "社会保险法 第七十四条",
        "case": "STANDING-1",
        "not_before": "2026-11-01T00:00:00Z",
        "expires": "2027-11-01T00:00:00Z",
    }
    answers = {refused(lambda f=field: account.post("/requests", terms | {"fields": [f]})) for field in FIELDS}  # type: ignore[misc]
    assert answers <= {Reason.ROLE_MISSING, Reason.ROLE_FORBIDDEN}
    found = pool.world.root.get("/audit/entries", {"action": "exchange:grant:submit", "decision": "deny"})
    assert any(one["entry"]["actor"]["role"] == role for one in found)


def test_no_right_of_the_configuration_opens_another_department_s_view() -> None:
    everything = '[[registry.rights]]\nwho = "*"\noperations = ["read", "read_by_id"]\nsubjects = ["*"]\n'
    with World.start(everything) as world:
        provider, consumer, other = map(world.department, ("公安局", "人社局", "城管局"))
        provider.offer(str(TOPIC), library.text("population"))
        grant = consumer.request(str(TOPIC), ["full_name"])
        provider.approve(grant)
        with world.client(consumer.enrol("drawer")) as drawer, world.client(other.enrol("stranger")) as stranger:
            view = drawer.describe(grant).schema_id
            assert stranger.schema(TOPIC)[1], "the right opens the resource's schema"
            assert refused(lambda: stranger.schema(schema_id=view)) is Reason.RIGHT_MISSING
            with pytest.raises(InvalidError) as caught:
                stranger.schema(schema_id=10_000)
            assert caught.value.reason is Reason.SCHEMA_UNKNOWN
