"""Who sees which entries of the log, and what of them, by every way that returns entries.

A provider publishes 500 persons, and a consumer draws those of one district. The provider sees each draw whole. The
consumer sees its own draws without positions, which would show how many rows its filter hides. A third department sees
nothing.
"""

import base64
import io
import json
import re
import ssl
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from typer.testing import CliRunner

from exchange.admin_client import AdminClient
from exchange.api.http import ROUTERS as ALL_ROUTERS
from exchange.cli import app as program
from exchange.demo.people import DISTRICTS, persons
from schemas import library
from schemas.errors import InvalidError, PoolError, Reason
from schemas.merkle import leaf_hash
from schemas.names import Topic
from tests.kit.patience import wait_for
from tests.kit.world.publisher import Publisher, chunks, framed
from tests.kit.world.world import Office, World, in_clear

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

TOPIC = Topic.parse("population.v1")
ROWS = list(persons(500))
RANGES = {"from", "to", "delivered", "withdrawn", "runs", "at"}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
OFFICERS = ("security_officer", "sharing_office_head")
# A route or a command that is not here returns entries unseen by this test.
ROUTES = {
    "/v1/audit/entries",
    "/v1/audit/entries.csv",
    "/v1/audit/entries.jsonl",
    "/v1/audit/entries/{entry_id}",
    "/v1/audit/entries/{entry_id}/proof",
    "/v1/audit/bundles",
    "/v1/audit/checkpoint",
    # These return no entries.
    "/v1/audit/keys",
    "/v1/audit/keys/prunings",
    "/v1/audit/keys/prunings/{proposal_id}/confirmation",
}
COMMANDS = {"list", "show", "prove", "checkpoint", "verify", "check-proof", "keys", "prune-keys", "reindex"} | {
    "bundle",
    "export",
    "report",
    "stream",
}


@dataclass
class City:
    world: World
    provider: Office
    consumer: Office
    other: Office
    releases: list[str]  # ids of the entries of the draws
    commits: list[str]

    def reader(self, office: Office, role: str) -> AdminClient:
        return office.account(role)


@pytest.fixture(scope="module")
def city() -> Iterator[City]:
    with World.start() as world:
        provider, consumer, other = map(world.department, ("公安局", "人社局", "城管局"))
        provider.offer(str(TOPIC), library.text("population"))
        source, sink = provider.enrol("source"), consumer.enrol("sink")
        district = {"op": "eq", "field": "household_division_code", "value": DISTRICTS[0]}
        shown = ["full_name", "household_division_code"]
        grant = consumer.request(str(TOPIC), shown, row_filter=district, **in_clear(*shown))
        provider.approve(grant)
        terms = {"purpose": "eligibility", "case": "STANDING-1"}
        made = City(world, provider, consumer, other, [], [])
        with world.client(source) as pool:
            schema_id, text = pool.schema(TOPIC)
            publisher = Publisher(source.pool_id, provider.id, "source", str(TOPIC), source.signing_key)
            batches = (publisher.batch(framed(schema_id, text, rows)) for rows in chunks(ROWS, 100))
            assert len(list(pool.publish(TOPIC, batches))) == 5
        with world.client(sink) as pool:
            position = b""
            while True:
                fetched = pool.fetch(grant, position=position, max_records=200, **terms)
                position = fetched.next_position
                if fetched.entry_id:
                    made.releases.append(fetched.entry_id)
                made.commits.append(pool.commit(grant, position, **terms))
                if fetched.caught_up:
                    break
        assert made.releases
        wait_for(lambda: signed(made), "all releases are signed")
        yield made


def signed(city: City) -> bool:
    found = city.world.root.get("/audit/entries", {"action": "exchange:records:commit", "limit": 1000})
    return bool(found) and all(one["proof"] == "signed" for one in found)


def ids(found: list[dict[str, Any]]) -> set[str]:
    return {one["entry"]["id"] for one in found}


def outcome(call: Callable[[], object]) -> Reason | None:
    try:
        call()
    except PoolError as error:
        return error.reason
    return None


def test_each_route_and_each_command_that_returns_entries_is_tested_here() -> None:
    every = [route for one in ALL_ROUTERS for route in one.routes]
    routes = {route.path for route in every if isinstance(route, APIRoute) and "/audit/" in route.path}
    assert routes == ROUTES
    group = next(one for one in program.registered_groups if one.name == "audit")
    assert group.typer_instance is not None
    assert {command.name for command in group.typer_instance.registered_commands} == COMMANDS


@pytest.mark.parametrize("role", OFFICERS)
def test_a_provider_sees_every_draw_of_its_data_whole(city: City, role: str) -> None:
    reader = city.reader(city.provider, role)
    found = reader.get("/audit/entries", {"action": "exchange:records:fetch", "limit": 1000})
    assert {*city.releases} <= ids(found)
    assert all({"from", "to", "delivered"} <= one["entry"]["data"].keys() and not one["withheld"] for one in found)
    assert {one["entry"]["actor"]["department"] for one in found} == {city.consumer.id}
    by_consumer = reader.get("/audit/entries", {"department": city.consumer.id, "resource": str(TOPIC), "limit": 1000})
    assert {*city.releases} <= ids(by_consumer)
    shown = reader.get(f"/audit/entries/{city.releases[0]}")
    leaf = base64.b64decode(shown["leaf"])
    assert leaf_hash(leaf).hex() == shown["leaf_hash"]
    assert json.loads(leaf) == shown["entry"]


@pytest.mark.parametrize("role", OFFICERS)
def test_a_consumer_sees_its_own_acts_without_positions(city: City, role: str) -> None:
    reader = city.reader(city.consumer, role)
    found = [
        one
        for action in ("exchange:records:fetch", "exchange:records:commit")
        for one in reader.get("/audit/entries", {"action": action, "limit": 1000})
    ]
    assert ids(found) >= {*city.releases, *city.commits}
    shown = [reader.get(f"/audit/entries/{entry_id}") for entry_id in (*city.releases, *city.commits)]
    for one in (*found, *shown):
        assert not RANGES & one["entry"]["data"].keys(), one
        assert "leaf" not in one
        assert "salt" not in one["entry"], "with it, positions could be guessed until the hash fits"
        assert one["withheld"]
        assert len(one["leaf_hash"]) == 64
    released = [one["entry"]["data"] for one in found if one["entry"]["id"] in city.releases]
    expected = sum(row["household_division_code"] == DISTRICTS[0] for row in ROWS)
    assert sum(data["count"] for data in released) == expected
    assert all(len(data["root"]) == 64 for data in released)


def test_an_export_holds_what_a_search_shows_and_no_more(city: City) -> None:
    action = {"action": "exchange:records:fetch"}
    for office in (city.provider, city.consumer, city.other):
        reader = city.reader(office, "security_officer")
        found = reader.get("/audit/entries", {**action, "limit": 1000})
        lines = [json.loads(line) for line in reader.get("/audit/entries.jsonl", action).splitlines()]
        by_id = {one["entry"]["id"]: one["entry"] for one in lines}
        assert all(by_id[one["entry"]["id"]] == one["entry"] for one in found)
        assert bool({*city.releases} & by_id.keys()) == (office is not city.other)
        table = reader.get("/audit/entries.csv", action)
        assert all((release in table) == (office is not city.other) for release in city.releases)
        if office is city.consumer:
            assert not any(RANGES & one["data"].keys() or "salt" in one for one in by_id.values())


def test_a_bundle_holds_what_a_search_shows_and_no_more(city: City) -> None:
    for office in (city.provider, city.consumer):
        with city.reader(office, "security_officer").download(
            "/audit/bundles", body={"entries": city.releases}
        ) as parts:
            content = b"".join(parts)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
        entries = [json.loads(text) for name, text in files.items() if name.startswith("entries/")]
        assert {one["id"] for one in entries} == {*city.releases}
        for one in entries:
            assert ("delivered" in one["data"]) == ("salt" in one) == (office is city.provider)
            assert office is city.provider or not RANGES & one["data"].keys()
        for release in city.releases:
            extra = base64.b64decode(
                files[f"proofs/{release}.tlog-proof"].decode().split("\n")[1].removeprefix("extra ")
            )
            assert (len(extra) > 32) == (office is city.provider)
    stranger = city.reader(city.other, "security_officer")
    for body in ({"entries": city.releases[:1]}, {"entries": city.commits[:1]}):
        with pytest.raises(InvalidError) as refused, stranger.download("/audit/bundles", body=body) as parts:
            b"".join(parts)
        assert refused.value.reason is Reason.NOT_FOUND


def test_a_consumer_s_proof_verifies_offline_and_holds_no_position(city: City, tmp_path: Path) -> None:
    for office, whole in ((city.consumer, False), (city.provider, True)):
        reader = city.reader(office, "security_officer")
        digest = reader.get(f"/audit/entries/{city.releases[0]}")["leaf_hash"]
        text = reader.get(f"/audit/entries/{city.releases[0]}/proof")
        extra = base64.b64decode(text.split("\n")[1].removeprefix("extra "))
        assert (len(extra) > 32) == whole
        file = tmp_path / f"{office.id}.tlog-proof"
        file.write_text(text)
        key = ["--key", str(city.world.data / "log.pub"), "--leaf-hash", digest]
        checked = CliRunner().invoke(program, ["audit", "check-proof", str(file), *key])
        assert checked.exit_code == 0, checked.output
        assert ("delivered" in checked.output) == whole
        assert ("What the entry says is not in the file" in checked.output) == (not whole)
        other = CliRunner().invoke(program, ["audit", "check-proof", str(file), *key[:3], "00" * 32])
        assert other.exit_code != 0


def test_a_third_department_sees_nothing_of_it(city: City) -> None:
    for role in OFFICERS:
        reader = city.reader(city.other, role)
        own = reader.get("/audit/entries", {"limit": 1000})
        assert {one["entry"]["actor"]["department"] for one in own} <= {city.other.id, ""}
        assert not ids(own) & {*city.releases, *city.commits}
        for criteria in ({"resource": str(TOPIC)}, {"department": city.consumer.id}, {"department": city.provider.id}):
            assert reader.get("/audit/entries", {**criteria, "limit": 1000}) == []
        for path in (f"/audit/entries/{city.releases[0]}", f"/audit/entries/{city.releases[0]}/proof"):
            with pytest.raises(InvalidError) as caught:
                reader.get(path)
            assert caught.value.reason is Reason.NOT_FOUND


def test_a_consumer_does_not_see_what_a_provider_does(city: City) -> None:
    reader = city.reader(city.consumer, "security_officer")
    assert reader.get("/audit/entries", {"action": "exchange:records:publish", "limit": 1000}) == []
    published = city.world.root.get("/audit/entries", {"action": "exchange:records:publish", "limit": 1})[0]
    assert outcome(lambda: reader.get(f"/audit/entries/{published['entry']['id']}/proof")) is Reason.NOT_FOUND


def test_an_auditor_sees_all_whole(city: City) -> None:
    auditor = city.world.account("auditor-1", "auditor")
    found = auditor.get("/audit/entries", {"action": "exchange:records:fetch", "limit": 1000})
    assert {*city.releases} <= ids(found)
    assert all(not one["withheld"] and "delivered" in one["entry"]["data"] for one in found)


def test_one_entry_comes_with_what_proves_it(city: City) -> None:
    auditor = city.world.account("auditor-3", "auditor")
    shown = auditor.get(f"/audit/entries/{city.releases[0]}")
    assert leaf_hash(base64.b64decode(shown["leaf"])).hex() == shown["leaf_hash"]
    assert shown["proof"] == "signed"
    assert shown["checkpoint"]["size"] > shown["index"]
    assert shown["checkpoint"]["note"].splitlines()[1] == str(shown["checkpoint"]["size"])
    assert datetime.fromisoformat(shown["time"]) == EPOCH + timedelta(microseconds=shown["entry"]["at"])


def test_pages_lead_through_the_whole_log(city: City) -> None:
    auditor = city.world.account("auditor-4", "auditor")
    # Its own searches are entries too: newer ones, which no later page shows.
    first = auditor.get("/audit/entries", {"limit": 1})[0]
    whole = auditor.get("/audit/entries", {"limit": 1000, "after": first["cursor"]})
    assert len(whole) > 40
    address = f"/audit/entries?limit=7&after={first['cursor']}"
    found: list[dict[str, Any]] = []
    url, headers = f"https://{city.world.addresses['http']}", auditor._headers
    tls = ssl.create_default_context(cafile=str(city.world.data / "ca" / "authority.crt"))
    with httpx.Client(base_url=url, headers=headers, verify=tls, trust_env=False) as http:
        while address:
            answer = http.get(address if address.startswith("/v1") else f"/v1{address}").raise_for_status()
            found += answer.json()
            address = str(answer.links.get("next", {}).get("url", ""))
    assert [one["entry"] for one in found] == [one["entry"] for one in whole]  # meanwhile, they get their proofs
    for text in ("x", "a-b-c", "12-3", "abc"):
        assert outcome(partial(auditor.get, "/audit/entries", {"after": text})) is Reason.REQUEST_INVALID


def test_entries_are_found_by_actor_time_reason_and_party(city: City) -> None:
    auditor = city.world.account("auditor-5", "auditor")
    drawn = auditor.get("/audit/entries", {"actor": "sink", "department": city.consumer.id, "limit": 1000})
    assert {*city.releases, *city.commits} <= ids(drawn)
    assert {one["entry"]["actor"]["id"] for one in drawn} == {"sink"}
    last = drawn[0]["time"]
    assert auditor.get("/audit/entries", {"actor": "sink", "from": last}) == drawn[:1]
    assert auditor.get("/audit/entries", {"actor": "sink", "to": last, "limit": 1000}) == drawn[1:]
    assert auditor.get("/audit/entries", {"actor": "sink", "to": "2020-01-01"}) == []
    assert auditor.get("/audit/entries", {"entry": city.releases[0]}) == [
        one for one in drawn if one["entry"]["id"] == city.releases[0]
    ]
    for text in ("yesterday", "2026-10-01T00:00:00", "20261001"):
        assert outcome(partial(auditor.get, "/audit/entries", {"from": text})) is Reason.REQUEST_INVALID
    of_provider = auditor.get("/audit/entries", {"party": city.provider.id, "action": "exchange:records:fetch"})
    assert {*city.releases} <= ids(of_provider)
    assert auditor.get("/audit/entries", {"party": city.other.id, "action": "exchange:records:fetch"}) == []
    officer = city.reader(city.consumer, "security_officer")
    assert ids(officer.get("/audit/entries", {"party": "mine", "actor": "sink", "limit": 1000})) == ids(drawn)
    for other in (city.provider.id, city.other.id):
        assert outcome(partial(officer.get, "/audit/entries", {"party": other})) is Reason.OTHER_DEPARTMENT
    refused = auditor.get("/audit/entries", {"reason": "other_department", "department": city.consumer.id})
    assert {one["entry"]["reason"] for one in refused} == {"other_department"}


@pytest.mark.parametrize("form", ["text", "csv", "jsonl"])
def test_a_list_says_who_acted_and_which_entry_it_is(city: City, form: str, tmp_path: Path) -> None:
    auditor = city.world.account(f"auditor-{form}", "auditor")
    token = tmp_path / "token"
    token.write_text(auditor._headers["authorization"].removeprefix("Bearer "))
    who = ["--url", f"https://{city.world.addresses['http']}", "--token-file", str(token)]
    who += ["--authority", str(city.world.data / "ca" / "authority.crt")]
    criteria = ["--actor", "sink", "--from", "2026-01-01", "--format", form, "--limit", "5000"]
    done = CliRunner().invoke(program, ["audit", "list", *criteria, *who])
    assert done.exit_code == 0, done.output
    lines = [line for line in done.output.splitlines() if "exchange:records:fetch" in line]
    assert all(any(entry in line for line in lines) for entry in city.releases)
    assert all(city.consumer.id in line and "sink" in line for line in lines)
    assert all(re.search(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line) for line in lines)


def test_the_command_line_shows_no_more(city: City, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(city.reader(city.consumer, "security_officer")._headers["authorization"].removeprefix("Bearer "))
    who = ["--url", f"https://{city.world.addresses['http']}", "--token-file", str(token)]
    who += ["--authority", str(city.world.data / "ca" / "authority.crt")]
    for command in (["list", "--json"], ["list", "--csv"], ["list"], ["show", city.releases[0]]):
        done = CliRunner().invoke(program, ["audit", *command, *who])
        assert done.exit_code == 0, done.output
        assert "exchange:records:fetch" in done.output
        assert '"delivered":' not in done.output


def test_reading_is_an_entry_with_digest_and_count(city: City) -> None:
    auditor = city.world.account("auditor-2", "auditor")
    found = auditor.get("/audit/entries", {"action": "exchange:records:fetch", "case": "STANDING-1", "limit": 7})
    auditor.get("/audit/entries", {"action": "exchange:records:fetch", "case": "STANDING-2", "limit": 7})
    auditor.get(f"/audit/entries/{city.releases[0]}")
    reads = city.world.root.get("/audit/entries", {"action": "audit:log:read", "limit": 50})
    own = [one["entry"] for one in reads if one["entry"]["actor"]["id"] == "auditor-2"]
    assert [entry["resource"] for entry in own] == [city.releases[0], "*", "*"]
    searches = [entry["data"] for entry in own[1:]]
    assert [data["count"] for data in searches] == [0, len(found)]
    assert searches[0]["digest"] != searches[1]["digest"]
    assert all(len(data["digest"]) == 64 and "case" not in data["query"] for data in searches)
