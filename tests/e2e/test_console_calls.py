"""The calls that a console needs, one by one: in the API's document with parameters, and in answers with members.

Beside them stands what the first list of these calls had and the API does not have, with the reason; once it is there,
its row fails.
"""

import http.client
import json
import ssl
from typing import Any
from unittest.mock import Mock
from urllib.parse import urlsplit

import pytest

from exchange.api import http as control_api
from exchange.demo.people import persons
from schemas import library
from schemas.names import Topic
from schemas.proto.pool.v1 import exchange_pb2
from tests.kit.patience import wait_for
from tests.kit.world.publisher import Publisher, framed
from tests.kit.world.world import Office, World

pytestmark = [pytest.mark.e2e, pytest.mark.postgres]
TOPIC = "residents-console.v1"
DOCUMENT: dict[str, Any] = control_api.create(Mock(), Mock()).openapi()

CALLS: dict[str, list[tuple[str, str, set[str]]]] = {
    "A1": [("get", "/v1/audit/entries", {"after", "actor", "reason", "party", "entry", "limit"})],
    "A2": [("get", "/v1/audit/entries/{entry_id}", set()), ("get", "/v1/audit/entries/{entry_id}/proof", set())],
    "A4": [
        ("get", "/v1/audit/entries.csv", {"actor", "reason", "party", "case", "from", "to"}),
        ("get", "/v1/audit/entries.jsonl", {"actor", "reason", "party", "case", "from", "to"}),
        ("post", "/v1/audit/bundles", set()),
    ],
    "G1": [
        ("get", "/v1/grants", {"consumer", "provider", "topic", "state", "due", "order", "after", "limit"}),
        ("get", "/v1/grants/counts", set()),
    ],
    "G2": [
        ("get", "/v1/grants/{grant_id}", set()),
        ("get", "/v1/grants/{grant_id}/versions", {"after", "limit"}),
        ("get", "/v1/grants/{grant_id}/use", set()),
        ("get", "/v1/grants/{grant_id}/may", set()),
    ],
    "U1": [
        ("get", "/v1/users", {"after", "limit"}),
        ("post", "/v1/users/{name}/revocation", set()),
        ("post", "/v1/users/{name}/token", set()),
        ("get", "/v1/me", set()),
    ],
    "K1": [
        ("get", "/v1/connectors", {"after", "limit"}),
        ("get", "/v1/connectors/{department}/{name}", set()),
        ("get", "/v1/invitations", {"after", "limit"}),
    ],
}
"""Call of the list → method, path and parameters. G6 and E1 are about answers."""

DIFFERENT = {
    ("get", "/v1/audit/entries", "session"): "the pool has no sessions: every call has its token",
    ("get", "/v1/grants", "sort"): "is called `order`, and has no order by deadline (ADR 0080)",
    ("delete", "/v1/users/{name}", ""): "POST /v1/users/{name}/revocation: it needs a reason",
    ("get", "/v1/sessions", ""): "the pool has no sessions",
    ("get", "/v1/logins", ""): "the pool has no logins of another provider",
}


def parameters(method: str, path: str) -> set[str]:
    return {one["name"] for one in DOCUMENT["paths"][path][method].get("parameters", []) if one["in"] == "query"}


@pytest.mark.parametrize("call", CALLS)
def test_a_call_of_the_list_is_in_the_document_with_its_parameters(call: str) -> None:
    for method, path, expected in CALLS[call]:
        assert method in DOCUMENT["paths"].get(path, {}), f"{method} {path}"
        assert expected <= parameters(method, path), f"{method} {path}"


@pytest.mark.parametrize(("method", "path", "parameter"), DIFFERENT)
def test_what_the_list_has_otherwise_is_not_there(method: str, path: str, parameter: str) -> None:
    described = DOCUMENT["paths"].get(path, {})
    assert method not in described or (parameter and parameter not in parameters(method, path))


@pytest.fixture(scope="module")
def line(postgres_world: World) -> tuple[Office, str, str]:
    """Return a provider with a connector, a grant on its resource, and the entry of a release under it."""
    provider, consumer = postgres_world.department("民政局台"), postgres_world.department("医保局台")
    provider.offer(TOPIC, library.text("population"), code=postgres_world.new_code())
    source, sink = provider.enrol("source"), consumer.enrol("sink")
    grant = consumer.request(TOPIC, ["id_number"])
    provider.approve(grant)
    with postgres_world.client(source) as pool:
        schema_id, text = pool.schema(Topic.parse(TOPIC))
        publisher = Publisher(source.pool_id, provider.id, source.connector, TOPIC, source.signing_key)
        list(pool.publish(Topic.parse(TOPIC), [publisher.batch(framed(schema_id, text, list(persons(3))))]))
    with postgres_world.client(sink) as pool:
        entry = pool.fetch(grant, position=b"\x00", purpose="eligibility", case="STANDING-1").entry_id
    root = postgres_world.root
    wait_for(lambda: root.get(f"/audit/entries/{entry}")["proof"] == "signed", "the release is signed")
    return provider, grant, entry


MEMBERS: list[tuple[str, str, set[str]]] = [
    ("A1", "/audit/entries", {"entry", "time", "index", "leaf_hash", "proof", "cursor", "withheld"}),
    ("A2", "/audit/entries/{entry}", {"entry", "leaf", "index", "leaf_hash", "proof", "checkpoint"}),
    ("A2", "/audit/entries/{entry} checkpoint", {"size", "root", "at", "note"}),
    ("G1", "/grants", {"id", "version", "state", "submitted_at", "due_at", "due_confirmed", "due", "expires"}),
    ("G1", "/grants/counts", {"counts", "more"}),
    ("G2", "/grants/{grant}", {"id", "purpose", "legal_basis", "fields", "masks", "row_filter", "review", "due_at"}),
    ("G2", "/grants/{grant}/versions", {"version", "state", "at", "hash", "entry"}),
    ("G2", "/grants/{grant}/use", {"grant", "days", "releases", "more", "last"}),
    ("G2", "/grants/{grant}/may", {"grant", "events"}),
    ("U1", "/users", {"name", "role", "department", "staff_number", "expires_at", "last_used", "revoked_at"}),
    ("U1", "/me", {"name", "role", "department", "rights"}),
    ("K1", "/connectors", {"department", "connector", "status", "reason", "certificate", "report", "last_batch"}),
    ("K1", "/connectors/{department}/source", {"certificate_history", "signing_keys", "lanes", "draws", "report"}),
    ("K1", "/invitations", {"id", "department", "connector", "state", "created_at", "expires_at", "used_at"}),
]


@pytest.mark.parametrize(("call", "path", "members"), MEMBERS)
def test_an_answer_has_the_members_of_the_list(
    postgres_world: World, line: tuple[Office, str, str], call: str, path: str, members: set[str]
) -> None:
    provider, grant, entry = line
    target, _, inner = path.format(entry=entry, grant=grant, department=provider.id).partition(" ")
    answer = postgres_world.root.get(target)
    one = answer[-1] if isinstance(answer, list) else answer
    one = one[inner] if inner else one
    assert members <= one.keys(), f"{call} {path}: {members - one.keys()}"


def test_lists_name_their_next_page_and_damaged_rows() -> None:
    assert "Link" in DOCUMENT["paths"]["/v1/audit/entries"]["get"]["description"]
    assert '"status": "damaged"' in DOCUMENT["paths"]["/v1/grants"]["get"]["description"]  # G6


def test_the_call_of_reports_is_in_the_service() -> None:
    call = exchange_pb2.DESCRIPTOR.services_by_name["Exchange"].methods_by_name["Report"]
    assert not call.client_streaming
    assert {"program", "started", "configuration", "streams"} <= {*call.input_type.fields_by_name}
    assert {"next", "latest_program", "notices"} <= {*call.output_type.fields_by_name}


def test_a_problem_says_in_the_reader_s_language_what_it_is_about_and_what_to_do(postgres_world: World) -> None:
    address = urlsplit(f"https://{postgres_world.addresses['http']}")
    context = ssl.create_default_context(cafile=postgres_world.data / "ca" / "authority.crt")
    connection = http.client.HTTPSConnection(address.hostname or "", address.port, context=context)
    told = {}
    for language in ("zh-CN", "en"):
        connection.request("GET", "/v1/me", headers={"accept-language": language})
        response = connection.getresponse()
        assert response.getheader("content-type") == "application/problem+json"
        told[language] = json.loads(response.read())
    connection.close()
    for problem in told.values():
        assert {"type", "title", "status", "detail", "help", "reason", "instance"} <= problem.keys()
    assert told["zh-CN"]["reason"] == told["en"]["reason"]
    assert told["zh-CN"]["title"] != told["en"]["title"]
    assert told["zh-CN"]["help"] != told["en"]["help"]
