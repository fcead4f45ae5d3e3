"""Connectors as processes report to a pool as a process, and an operator sees which of them runs."""

import json
import os
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from exchange.client import Identity
from exchange.demo.people import persons
from schemas import library
from schemas.connector_report import ConnectorReport, Direction, ReconciliationTotals, StreamReport, StreamState
from schemas.errors import InvalidError, Reason, RefusedError, UnavailableError
from tests.e2e.test_show import Terminal
from tests.kit.patience import PATIENCE, wait_for
from tests.kit.world.world import Office, World, in_clear

pytestmark = [pytest.mark.e2e, pytest.mark.postgres]
TOPIC = "residents-reported.v1"
PEOPLE = list(persons(60))
NAMES = list(PEOPLE[0])


@pytest.fixture(scope="module")
def police(postgres_world: World) -> Office:
    office = postgres_world.department("公安局十一")
    office.offer(TOPIC, library.text("population"), code=postgres_world.new_code())
    return office


def enrolled(world: World, office: Office, connector: str) -> tuple[Identity, Path]:
    identity = office.enrol(connector)
    return identity, world.folder / "identities" / office.id / connector


def configured(world: World, office: Office, connector: str, folder: Path, content: dict[str, Any]) -> Path:
    _, where = enrolled(world, office, connector)
    file = folder / f"{connector}.yaml"
    exchange = {"identity": str(where), "gateway": world.addresses["gateway"]}
    file.write_text(json.dumps({"version": 1, "connector": connector, "exchange": exchange, **content}))
    return file


def publishing(folder: Path) -> dict[str, Any]:
    """Return the configuration of a connector that publishes a table, of which one row does not fit."""
    database = folder / "source.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        kinds = {name: "BOOLEAN" if isinstance(PEOPLE[0][name], bool) else "TEXT" for name in NAMES}
        kinds |= {name: "DATE" for name in NAMES if name.endswith("_date")} | {"id_number": "TEXT NOT NULL PRIMARY KEY"}
        columns = ", ".join(f"{name} {kind}" for name, kind in kinds.items())
        connection.execute(f"CREATE TABLE population ({columns})")
        rows = [[str(v) if k.endswith("date") and v else v for k, v in person.items()] for person in PEOPLE]
        connection.executemany(f"INSERT INTO population VALUES ({', '.join('?' * len(NAMES))})", rows)
        connection.execute("UPDATE population SET full_name = NULL WHERE rowid = 1")
    return {
        "source": {"kind": "sql", "url": f"sqlite:///{database}", "poll": "1s"},
        "publish": [{"resource": TOPIC, "table": "population"}],
    }


@contextmanager
def running(world: World, config: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a connector until it is told to end."""
    command = world.programs.command("pool-connect", "run", str(config))
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ})
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def listed(world: World, office: Office, connector: str) -> dict[str, Any]:
    return dict(world.root.get(f"/connectors/{office.id}/{connector}"))


def test_a_connector_is_seen_running_ended_and_by_what_it_publishes(
    postgres_world: World, police: Office, tmp_path: Path
) -> None:
    world = postgres_world
    config = configured(world, police, "register", tmp_path, publishing(tmp_path))
    terminal = Terminal(world, "authority-1", tmp_path)
    assert listed(world, police, "register")["status"] == "never"
    row = next(line for line in terminal.run("connector", "list").splitlines() if "register" in line)
    assert "has never reported" in row

    with running(world, config) as process:
        wait_for(lambda: listed(world, police, "register")["status"] == "running", "the first report")
        wait_for(
            lambda: (listed(world, police, "register")["report"]["streams"][0]["sequence"], process.poll())[0] == 1,
            "a report after the first run",
        )
        document = listed(world, police, "register")
        [stream] = document["report"]["streams"]
        assert (stream["name"], stream["direction"], stream["mode"]) == (TOPIC, "publish", "snapshot")
        assert stream["state"] in {"running", "waiting"}
        assert stream["quarantine"] == {"NULL_NOT_ALLOWED": 1}
        assert stream["last_success"] is not None
        assert document["report"]["program"].startswith("exchange-pool/")
        assert document["last_batch"]["topic"] == TOPIC
        assert document["lanes"] == [document["last_batch"]]
        row = next(line for line in terminal.run("connector", "list").splitlines() if "register" in line)
        assert "running" in row
        text = terminal.run("connector", "show", police.id, "register")
        for words in ("running", TOPIC, "(snapshot)", "in quarantine: NULL_NOT_ALLOWED 1", "last batch of", "batch 1,"):
            assert words in text, f"{words}\n{text}"
        # Nothing of a row and nothing of the machine is in it.
        told = json.dumps(document, ensure_ascii=False)
        assert not any(str(value) in told for person in PEOPLE for value in (person["id_number"], person["full_name"]))
        assert str(tmp_path) not in told
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    ended = listed(world, police, "register")
    assert (ended["status"], ended["reason"]) == ("ended", "")
    assert [one["state"] for one in ended["report"]["streams"]] == ["done"]
    assert "ended at" in terminal.run("connector", "list")


def test_a_connector_that_stops_says_why_and_one_that_is_killed_says_nothing(
    postgres_world: World, police: Office, tmp_path: Path
) -> None:
    world = postgres_world
    content = publishing(tmp_path)
    content["publish"][0]["table"] = "no_such_table"
    stopped = configured(world, police, "stopping", tmp_path, content)
    with running(world, stopped) as process:
        assert process.wait(PATIENCE) != 0
    document = listed(world, police, "stopping")
    assert document["status"] == "stopped"
    assert document["reason"] in {one.value for one in Reason}
    assert document["report"]["streams"][0]["reason"] == document["reason"]
    shown = Terminal(world, "authority-1", tmp_path).run("connector", "show", police.id, "stopping")
    assert f": {document['reason']}" in shown

    content["publish"][0]["table"] = "population"
    killed = configured(world, police, "killed", tmp_path, content)
    with running(world, killed) as process:
        wait_for(lambda: listed(world, police, "killed")["status"] == "running", "the first report")
        process.kill()
    assert listed(world, police, "killed")["report"]["ended"] is False


def test_a_subscription_is_reported_with_its_grant_and_its_last_draw(
    postgres_world: World, police: Office, tmp_path: Path
) -> None:
    world = postgres_world
    labour = world.department("人社局十一")
    grant = labour.request(TOPIC, ["id_number", "full_name"], **in_clear("id_number", "full_name"))
    police.approve(grant)
    target = f"sqlite:///{tmp_path / 'target.db'}"
    into = {"kind": "sql", "url": target, "table": "residents", "create_table": True}
    content = {
        "subscribe": [{"grant": grant, "purpose": "eligibility", "case": "STANDING-1", "wait": "0s", "into": into}]
    }
    config = configured(world, labour, "drawing", tmp_path, content)
    source = configured(world, police, "filling", tmp_path, publishing(tmp_path))
    for file in (source, config):
        world.programs.run("pool-connect", "run", str(file), "--once")
    document = listed(world, labour, "drawing")
    assert document["status"] == "ended"
    [stream] = document["report"]["streams"]
    assert (stream["name"], stream["direction"], stream["mode"], stream["state"]) == (grant, "subscribe", "", "done")
    [draw] = document["draws"]
    assert draw["grant"] == grant
    assert draw["records"] >= 1
    assert document["last_batch"] is None
    # Another department's connector that names the grant is not told of its draws.
    identity, _ = enrolled(world, police, "curious")
    claimed = StreamReport(name=grant, direction=Direction.SUBSCRIBE, state=StreamState.RUNNING)
    with world.client(identity) as client:
        client.report(ConnectorReport(program="curious/1", started=1, streams=[claimed]))
    assert listed(world, police, "curious")["draws"] == []


def test_each_sees_the_connectors_and_invitations_of_its_own_department(
    postgres_world: World, police: Office, tmp_path: Path
) -> None:
    other = postgres_world.department("水务局十一")
    other.enrol("meters")
    police.enrol("visible")
    head = other.account("sharing_office_head")
    assert {one["department"] for one in head.list("/connectors")} == {other.id}
    assert {one["department"] for one in head.list("/invitations")} == {other.id}
    assert {one["state"] for one in head.list("/invitations")} == {"used"}
    with pytest.raises(InvalidError) as refused:
        head.get(f"/connectors/{police.id}/visible")
    assert refused.value.reason is Reason.NOT_FOUND
    with pytest.raises(RefusedError):
        other.account("catalogue_editor").list("/connectors")
    every = postgres_world.root.list("/connectors")
    keys = [(one["department"], one["connector"]) for one in every]
    assert keys == sorted(keys)
    assert len({*keys}) == len(keys)
    by_page: list[dict[str, Any]] = []
    after = ""
    while page := postgres_world.root.list("/connectors", {"limit": 2, **({"after": after} if after else {})}):
        by_page += page
        after = f"{page[-1]['department']}/{page[-1]['connector']}"
    assert [(one["department"], one["connector"]) for one in by_page] == keys
    invitations = Terminal(postgres_world, "authority-1", tmp_path).run("connector", "invitations")
    assert other.id in invitations


def test_reports_are_bounded_by_connector_and_end_with_its_certificate(postgres_world: World, police: Office) -> None:
    identity, _ = enrolled(postgres_world, police, "talking")
    report = ConnectorReport(program="talking/1", started=1)
    with postgres_world.client(identity) as client:
        answer = client.report(report)
        assert answer is not None
        assert answer.next == 60

        def talk() -> None:
            for _ in range(100):
                client.report(report)

        with pytest.raises(UnavailableError) as limited:
            talk()
        assert limited.value.reason is Reason.RATE_LIMITED
        assert limited.value.retry_after
        # Nobody else is held up by it.
        quiet, _ = enrolled(postgres_world, police, "quiet")
        with postgres_world.client(quiet) as other:
            assert other.report(report) is not None
            number = StreamReport(name="t-13800138000.v1", direction=Direction.PUBLISH, state=StreamState.RUNNING)
            with pytest.raises(InvalidError) as found:
                other.report(ConnectorReport(program="quiet/1", started=1, streams=[number]))
            assert found.value.reason is Reason.PERSONAL_NUMBER
            totals = ReconciliationTotals(
                direction=Direction.PUBLISH,
                stream="t-13800138000.v1",
                sequence=1,
                ranges=[],
                set_aside=0,
                equal=True,
            )
            with pytest.raises(InvalidError) as found:
                other.reconciled(totals)
            assert found.value.reason is Reason.PERSONAL_NUMBER
            body = {"department": police.id, "connector": "quiet", "reason": "the machine was stolen"}
            postgres_world.root.post("/connectors/revocations", body)
            with pytest.raises(RefusedError) as refused:
                other.report(report)
            assert refused.value.reason is Reason.CERTIFICATE_REVOKED
    denials = postgres_world.root.get(
        "/audit/entries", {"action": "identity:connector:report", "decision": "deny", "department": police.id}
    )
    assert {one["entry"]["reason"] for one in denials} == {"certificate_revoked", "personal_number"}
    allowed = postgres_world.root.get("/audit/entries", {"action": "identity:connector:report", "decision": "allow"})
    assert allowed == []


def test_the_totals_of_a_reconciliation_are_an_entry_of_the_log(
    postgres_world: World, police: Office, tmp_path: Path
) -> None:
    world = postgres_world
    config = configured(world, police, "reconciled", tmp_path, publishing(tmp_path))
    world.programs.run("pool-connect", "run", str(config), "--once", check=False)
    done = world.programs.run("pool-connect", "reconcile", str(config), "--json")
    document = json.loads(done.stdout)
    assert document["same_lane"]
    entry = world.root.get(f"/audit/entries/{document['entry']}")["entry"]
    assert (entry["action"], entry["resource"]) == ("identity:connector:reconcile", TOPIC)
    assert (entry["actor"]["id"], entry["actor"]["department"]) == ("reconciled", police.id)
    data = entry["data"]
    assert (data["direction"], data["sequence"], data["equal"], data["set_aside"]) == ("publish", 1, True, 1)
    assert sum(count for _, count, _, _ in data["ranges"]) == len(PEOPLE) - 1
    assert [row[3] for row in data["ranges"]] == [True] * 16
    told = json.dumps(entry, ensure_ascii=False)
    assert not any(person["id_number"] in told or person["full_name"] in told for person in PEOPLE)
    # A row is deleted at the source, and what differs is in the next entry; --unstated leaves none.
    with closing(sqlite3.connect(tmp_path / "source.db")) as connection, connection:
        connection.execute("DELETE FROM population WHERE rowid = 2")
    differs = world.programs.run("pool-connect", "reconcile", str(config), check=False)
    assert differs.returncode == 4, differs.stdout
    assert "of the pool's log" in differs.stdout
    query = {"action": "identity:connector:reconcile", "resource": TOPIC}
    found = [one["entry"] for one in world.root.get("/audit/entries", query)]
    assert sorted(one["data"]["equal"] for one in found) == [False, True]
    world.programs.run("pool-connect", "reconcile", str(config), "--unstated", check=False)
    assert len(world.root.get("/audit/entries", query)) == 2
    # It is the department's own: its officer sees it, and another department's does not.
    assert len(police.account("security_officer").get("/audit/entries", query)) == 2
    stranger = world.department("统计局十一").account("security_officer")
    assert stranger.get("/audit/entries", query) == []
