"""From a department's JSON API to a program without gRPC: HTTP source, pool, records over HTTPS; on both brokers."""

import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from exchange.client import Identity
from exchange.demo.people import persons
from schemas import library
from tests.kit.patience import PATIENCE, wait_for
from tests.kit.twins.http_server import Answer, Call, HttpServer, http_server
from tests.kit.world.world import Office, World, in_clear

pytestmark = [pytest.mark.e2e, pytest.mark.postgres]
FIELDS = ["id_number", "full_name"]
PAGE = 40


class Api:
    """A register of persons as a JSON API, by cursor, that is overloaded in the middle of its first pass."""

    def __init__(self) -> None:
        self.people = {row["id_number"]: row for row in persons(100)}
        self.failures = 1

    def answer(self, call: Call) -> Answer:
        if call.headers.get("authorization") != "Bearer open-sesame":
            return Answer(status=401)
        start = int(call.query.get("after", "0"))
        if start and self.failures:
            self.failures -= 1
            return Answer(status=503)
        rows = list(self.people.values())
        page = [{"person": row} for row in rows[start : start + PAGE]]
        following = start + PAGE if start + PAGE < len(rows) else None
        body = json.dumps({"data": page, "next": following}, default=str, ensure_ascii=False)
        return Answer(body=body.encode())


@pytest.fixture
def api() -> Iterator[tuple[Api, HttpServer]]:
    register = Api()
    with http_server(register.answer) as server:
        yield register, server


class Program:
    """A consumer's program: an HTTP client, a JSON parser, and the state that it builds."""

    def __init__(self, world: World, identity: Identity, folder: Path, grant: str) -> None:
        identity.save(folder)
        context = ssl.create_default_context(cafile=str(folder / "authority.crt"))
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        self._http = httpx.Client(base_url=f"https://{world.addresses['http']}", verify=context, timeout=PATIENCE)
        self._grant = grant
        self._position = ""
        self.state: dict[str, dict[str, Any]] = {}
        self.received = 0

    def _call(self, what: str, **body: Any) -> dict[str, Any]:
        declared = {"grant": self._grant, "purpose": "eligibility", "case": "STANDING-1"}
        answer = self._http.post(f"/v1/records/{what}", json={**declared, **body})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def draw(self) -> dict[str, str]:
        """Fetch what there is, acknowledge it, and return id → name."""
        while True:
            answer = self._call("fetch", position=self._position, max_records=30)
            for record in answer["records"]:
                self.received += 1
                if record["operation"] == "withdrawn":
                    self.state.pop(record["record_key"], None)
                else:
                    self.state[record["record_key"]] = record["value"]
            self._position = answer["next_position"]
            self._call("commit", position=self._position)
            if answer["caught_up"]:
                return {row["id_number"]: row["full_name"] for row in self.state.values()}

    def close(self) -> None:
        self._http.close()


def configured(world: World, office: Office, server: HttpServer, folder: Path, topic: str) -> Path:
    identity = office.enrol("api")
    names = list(next(iter(persons(1))))
    (folder / "token").write_text("open-sesame\n")
    file = folder / "api.yaml"
    content = {
        "version": 1,
        "connector": "api",
        "exchange": {
            "identity": str(world.folder / "identities" / office.id / identity.connector),
            "gateway": world.addresses["gateway"],
        },
        "source": {"kind": "http", "url": server.url, "token": f"${{file:{folder / 'token'}}}"},
        "publish": [
            {
                "resource": topic,
                "deletes": {"stop_if_more_than": "10%"},
                "request": {
                    "path": "persons",
                    "records": "$.data",
                    "paging": {"kind": "cursor", "parameter": "after", "path": "$.next"},
                    "fields": {name: f"$.person.{name}" for name in names},
                },
            }
        ],
    }
    file.write_text(json.dumps(content))
    return file


def test_what_an_api_states_is_what_a_program_gets(world: World, tmp_path: Path, api: tuple[Api, HttpServer]) -> None:
    register, server = api
    topic = "residents-by-api.v1"
    office, consumer = world.department("公安局接口"), world.department("人社局接口")
    office.offer(topic, library.text("population"), code=world.new_code())
    config = configured(world, office, server, tmp_path, topic)
    done = world.programs.run("pool-connect", "run", str(config), "--once")
    assert "100 published" in done.stdout + done.stderr
    assert register.failures == 0, "the pass was interrupted once"
    grant = consumer.request(topic, FIELDS, **in_clear(*FIELDS))
    office.approve(grant)
    program = Program(world, consumer.enrol("program"), tmp_path / "program", grant)

    def expected() -> dict[str, str]:
        return {key: row["full_name"] for key, row in register.people.items()}

    try:
        wait_for(lambda: program.draw() == expected(), "the first pass")
        assert program.received == 100
        gone, renamed = list(register.people)[3:5]
        del register.people[gone]
        register.people[renamed] = {**register.people[renamed], "full_name": "改名"}
        done = world.programs.run("pool-connect", "run", str(config), "--once")
        assert "1 published" in done.stdout + done.stderr
        wait_for(lambda: program.draw() == expected(), "the second pass")
        assert program.received == 102, "a changed record and a withdrawal, and nothing twice"
    finally:
        program.close()
