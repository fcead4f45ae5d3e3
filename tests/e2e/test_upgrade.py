"""A pool that the version before made is brought up by this one: nothing is lost or doubled, and the log verifies."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from exchange.admin_client import AdminClient
from exchange.client import Identity
from exchange.demo.people import persons
from exchange.records.reading.position_token import BEGINNING
from schemas import library
from schemas.errors import Reason, RefusedError
from schemas.record import KeyOccurrence, Mark, Operation
from tests.kit.patience import wait_for
from tests.kit.world.earlier import EarlierPrograms
from tests.kit.world.people import People
from tests.kit.world.permits import Drawer, Permits
from tests.kit.world.publisher import framed
from tests.kit.world.world import Office, Programs, World, in_clear, kill_postmaster

pytestmark = [pytest.mark.e2e, pytest.mark.postgres, pytest.mark.needs_package("git"), pytest.mark.timeout(600)]
FIRST = "9a23e04"  # the last commit before tagged rows, accounts of persons and erasure
BEFORE = "ba6074c"  # the last commit before bounds on load, backups and readiness
UNRULED = "9d28842"  # the last commit before calendars, stored requests, corrections and succession
TOPIC = "residents.v1"
FIELDS = ("id_number", "full_name", "household_division_code")
PEOPLE = list(persons(1_000))
NAMES = list(PEOPLE[0])


def insert(database: Path, people: list[dict[str, Any]]) -> None:
    def kind(name: str) -> str:
        if name == "id_number":
            return "TEXT NOT NULL PRIMARY KEY"
        return "DATE" if name.endswith("_date") else "BOOLEAN" if isinstance(PEOPLE[0][name], bool) else "TEXT"

    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(f"CREATE TABLE IF NOT EXISTS population ({', '.join(f'{n} {kind(n)}' for n in NAMES)})")
        rows = [[str(v) if k.endswith("date") and v else v for k, v in person.items()] for person in people]
        connection.executemany(f"INSERT INTO population VALUES ({', '.join('?' * len(NAMES))})", rows)


class Line:
    """A department that publishes a table, another that draws it into one, and their grants."""

    def __init__(self, folder: Path, programs: Programs) -> None:
        self.world = World(folder, programs=programs)
        self.source, self.sink = folder / "police.db", folder / "labour.db"
        self.inserted: list[dict[str, Any]] = []

    def begin(self) -> None:
        """Make everything with the programs of the world: departments, schema, grants, two enrolled connectors."""
        self.world.initialise()
        self.world.serve()
        self.police, self.labour = self.world.department("公安局"), self.world.department("人社局")
        self.police.offer(TOPIC, library.text("population"), code="101001/000002")
        # The first version shows a field as it is where no request says otherwise, and knows no such term.
        terms = in_clear(*FIELDS) if self.world.programs.two_persons else {}
        self.grant, self.revoked, self.suspended = (self.labour.request(TOPIC, list(FIELDS), **terms) for _ in range(3))
        for grant in (self.grant, self.revoked, self.suspended):
            self.police.approve(grant)
        self.waiting = self.labour.request(TOPIC, ["full_name"], **(in_clear("full_name") if terms else {}))
        head = self.police.account("sharing_office_head")
        for grant in (self.revoked, self.suspended):
            head.post(f"/grants/{grant}/suspend", {"reason": "under review"})
        head.post(f"/grants/{self.revoked}/terminate", {"reason": "the purpose has ended"})
        self.publishing = self._config(self.police, "source", {
            "source": {"kind": "sql", "url": f"sqlite:///{self.source}"},
            "batch": {"rows": 50},
            "publish": [{"resource": TOPIC, "table": "population"}],
        })  # fmt: skip
        self.drawing = self._config(self.labour, "sink", {
            "subscribe": [{
                "grant": self.grant, "purpose": "eligibility", "case": "STANDING-1", "wait": "0s",
                "into": {"kind": "sql", "url": f"sqlite:///{self.sink}", "table": "residents", "create_table": True},
            }],
        })  # fmt: skip

    def _config(self, office: Office, connector: str, content: dict[str, Any]) -> Path:
        office.enrol(connector)
        where = self.world.folder / "identities" / office.id / connector
        file = self.world.folder / connector / "connector.yaml"
        file.parent.mkdir()
        exchange = {"identity": str(where), "gateway": "localhost:0"}
        file.write_text(json.dumps({"version": 1, "connector": connector, "exchange": exchange, **content}))
        return file

    def connect(self, config: Path, programs: Programs) -> list[str]:
        """Return the command that runs a connector once, against the gateway as it listens now."""
        content = json.loads(config.read_text())
        content["exchange"]["gateway"] = self.world.addresses["gateway"]
        config.write_text(json.dumps(content))
        return programs.command("pool-connect", "run", str(config), "--once")

    def publish(self, programs: Programs) -> None:
        run(self.connect(self.publishing, programs), programs)

    def draw(self, programs: Programs) -> None:
        run(self.connect(self.drawing, programs), programs)

    def misuse(self, programs: Programs) -> None:
        """Draw for another purpose than the granted one, which is refused."""
        wrong = self.drawing.with_name("wrong.yaml")
        wrong.write_text(self.drawing.read_text().replace('"eligibility"', '"statistics"'))
        command = self.connect(wrong, programs)
        done = subprocess.run(
            command, capture_output=True, check=False, timeout=120, env={**os.environ, **programs.environment}
        )
        assert done.returncode != 0

    def add(self, count: int) -> None:
        """Add persons to the source."""
        more = PEOPLE[len(self.inserted) : len(self.inserted) + count]
        insert(self.source, more)
        self.inserted += more

    def told(self, office: Office) -> bool:
        """Return whether a department is told that its grant shows unmasked what no request wrote out."""
        token = office.account("sharing_office_head")._headers["authorization"].removeprefix("Bearer ")
        listed = self.world.remote(token).get("/grants", {"unmasked": "true"})
        return any(one["id"] == self.grant and one.get("suspend_after") for one in listed)

    def drawn(self) -> set[tuple[str, ...]]:
        with closing(sqlite3.connect(self.sink)) as connection:
            return set(connection.execute(f"SELECT {', '.join(FIELDS)} FROM residents WHERE _deleted_at IS NULL"))

    def expected(self) -> set[tuple[str, ...]]:
        return {tuple(str(person[name]) for name in FIELDS) for person in self.inserted}


def run(command: list[str], programs: Programs) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, env={**os.environ, **programs.environment}
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def records(line: Line, grant: str, identity: Identity) -> list[bytes]:
    """Draw everything under a grant from its beginning; give the pseudonym of each record's key."""
    keys: list[bytes] = []
    position = BEGINNING
    with line.world.client(identity) as client:
        while True:
            drawn = client.fetch(grant, position=position, purpose="eligibility", case="STANDING-1")
            keys += [drawn.record_keys[at : at + 16] for at in range(0, len(drawn.record_keys), 16)]
            if drawn.caught_up:
                return keys
            position = drawn.next_position


@pytest.fixture
def line(tmp_path: Path, commit: str) -> Iterator[Line]:
    folder = Path(tempfile.mkdtemp(prefix="pool-upgrade-"))
    folder.chmod(0o755)  # the embedded PostgreSQL's own user must pass through
    line = Line(folder, EarlierPrograms(commit, tmp_path / "before", two_persons=commit != FIRST))
    try:
        yield line
    finally:
        line.world.close()
        print((folder / "pool.log").read_text()[-4000:] if (folder / "pool.log").exists() else "")
        shutil.rmtree(folder, ignore_errors=True)


def use_and_kill(line: Line) -> Path:
    """Use a pool of its version, then kill it while batches are on their way; return a checkpoint kept before that."""
    before = line.world.programs
    line.begin()
    line.add(250)
    line.publish(before)
    line.add(50)
    line.publish(Programs())  # a connector of this version goes on where the pool takes no reports
    line.draw(before)
    assert line.drawn() == line.expected()
    line.misuse(before)
    kept = line.world.folder / "checkpoint"
    shutil.copy(line.world.data / "log" / "checkpoint", kept)
    # A gateway that is killed while batches are on their way, and a connector that gives up on it.
    line.add(300)
    running = subprocess.Popen(
        line.connect(line.publishing, before), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env={**os.environ, **before.environment},
    )  # fmt: skip
    time.sleep(2.0)  # wherever it is by then: the moment is not the point, the state is
    line.world.stop(signal.SIGKILL)
    running.kill()
    running.wait()
    kill_postmaster(line.world.data)
    return kept


def statuses(line: Line) -> dict[str, str]:
    return {one["connector"]: one["status"] for one in line.world.root.list("/connectors")}


def upgrade(line: Line, now: Programs) -> Identity:
    """Bring the pool up with today's programs: the line goes on, what was revoked stays so; return a new connector."""
    line.world.programs = now
    now.run("pool", "migrate", "--data", str(line.world.data))
    line.world.serve()
    assert statuses(line) == {"source": "never", "sink": "never"}
    line.publish(now)
    line.draw(now)
    assert statuses(line) == {"source": "ended", "sink": "ended"}
    assert line.drawn() == line.expected()
    # What the log of before holds is found too, once.
    wait_for(lambda: line.world.root.list("/violations"), "the case of the refusal of before")
    assert [(one["sign"], one["grant"]) for one in line.world.root.list("/violations")] == [("purpose", line.grant)]
    other = line.labour.enrol("other")
    for grant, reason in ((line.revoked, Reason.GRANT_NOT_ACTIVE), (line.suspended, Reason.GRANT_SUSPENDED)):
        with line.world.client(other) as client, pytest.raises(RefusedError) as refused:
            client.fetch(grant, purpose="eligibility", case="STANDING-1")
        assert refused.value.reason is reason
    return other


def serve_old_connectors(line: Line, before: Programs, other: Identity) -> None:
    """A department that has not upgraded yet publishes and draws; every row is in the pool once."""
    line.add(100)
    line.publish(before)
    line.draw(before)
    assert line.drawn() == line.expected()
    keys = records(line, line.grant, other)
    assert len(keys) == len(set(keys)) == len(line.inserted), "each row is in the pool once"


def reach_again(world: World, *offices: Office) -> None:
    """Let the accounts of departments find the pool where it listens now."""
    for office in offices:
        for role in ("sharing_office_head", "security_officer"):
            token = office.account(role)._headers["authorization"].removeprefix("Bearer ")
            office.accounts[role] = world.remote(token)


def decide_old_requests(line: Line) -> None:
    """A request that was filed, and a grant that was suspended, before the law of requests had a table go on by it."""
    reach_again(line.world, line.labour, line.police)
    asker, head = (office.account("sharing_office_head") for office in (line.labour, line.police))
    seen = asker.get(f"/requests/{line.waiting}")
    assert (seen["state"], seen["clock"], seen["history"]) == ("submitted", "reply", [])
    assert head.post(f"/requests/{line.waiting}/need_more", {"missing": ["依据的条款"]})["state"] == "supplement"
    supplement = {"legal_basis": "社会保险法 第七十四条第一款"}
    assert asker.post(f"/requests/{line.waiting}/resubmission", supplement)["state"] == "submitted"
    assert line.police.approve(line.waiting)["state"] == "active"
    assert head.post(f"/grants/{line.suspended}/terminate", {"reason": "ended"})["state"] == "terminated"
    listed = {one["id"]: one["state"] for one in asker.list("/requests")}
    assert listed[line.grant] == "active"
    assert listed[line.waiting] == "active"


def check_log(line: Line, now: Programs, kept: Path) -> None:
    """Stop the pool and verify its log from the checkpoint that was kept before the upgrade."""
    line.world.stop()
    verified = now.run(
        "pool", "audit", "verify", "--files", str(line.world.data / "log"), "--key", str(line.world.data / "log.pub"),
        "--since", str(kept),
    )  # fmt: skip
    assert "nothing is wrong" in verified.stdout


@pytest.mark.parametrize("commit", [BEFORE])
def test_a_pool_of_the_version_before_goes_on(line: Line) -> None:
    before, now = line.world.programs, Programs()
    kept = use_and_kill(line)
    other = upgrade(line, now)
    serve_old_connectors(line, before, other)
    decide_old_requests(line)
    check_log(line, now, kept)


@pytest.mark.parametrize("commit", [FIRST])
def test_a_pool_from_before_tagged_rows_goes_on(line: Line) -> None:
    before, now = line.world.programs, Programs()
    kept = use_and_kill(line)
    tokens = line.world.people.tokens
    line.world.people = People()  # from here on it takes two persons
    other = upgrade(line, now)

    # Accounts of the version before go on, and sign second when their person is known.
    line.labour.accounts, line.police.accounts = {}, {}
    for office in (line.labour, line.police):
        name = f"sharing-office-head-{office.id[-6:]}"
        office.accounts["sharing_office_head"] = line.world.remote(tokens[name])
    grant = line.labour.request(TOPIC, list(FIELDS))
    with pytest.raises(RefusedError) as refused:
        line.police.approve(grant)
    assert refused.value.reason is Reason.PERSON_UNKNOWN
    for office in (line.labour, line.police):
        name = f"sharing-office-head-{office.id[-6:]}"
        proposal = line.world.root.post(f"/users/{name}/person", {"staff_number": f"OLD-{name[-6:]}"})
        office.account("security_officer").post(f"/proposals/{proposal['id']}/confirmation")
    assert line.police.approve(grant)["state"] == "active"

    # What no request of the version before wrote out stays as it is for now, and both departments are told.
    for office in (line.police, line.labour):
        wait_for(lambda office=office: line.told(office), "the grant of before is listed with its last day")

    serve_old_connectors(line, before, other)
    check_log(line, now, kept)


class Ruled:
    """A provider of permits and two departments that drew them, all of a pool from before the law of sharing."""

    def __init__(self, world: World) -> None:
        self.world, self.folder = world, world.folder
        self.permits = Permits(world, "许可局", "permits.v1")
        self.provider = self.permits.office
        self.labour, self.civil = world.department("人社局"), world.department("民政局")
        self.grants = {}
        for office in (self.labour, self.civil):
            grant = office.request(self.permits.topic, ["permit_no", "version", "district"])
            self.provider.approve(grant)
            self.grants[office.id] = grant
        self.permits.publish({"doubted": 1})
        self.target = self.folder / "target.db"
        self.drawer = self._drawer(self.labour)
        self.drawer.draw()
        with world.client(self.civil.enrol("reader")) as client:
            drawn = client.fetch(self.grants[self.civil.id], position=b"", purpose="eligibility", case="STANDING-1")
        keys = drawn.keys()
        [self.key] = [one.hex() for one in keys]
        self.permits.publish({f"e{number}": 1 for number in range(9)})
        self.drawer.draw()
        self.waiting = self.civil.request(self.permits.topic, ["version"])
        self.expected = {"doubted": 1, **{f"e{number}": 1 for number in range(9)}}
        assert self.drawn() == self.expected

    def _drawer(self, office: Office) -> Drawer:
        into = {"kind": "sql", "url": f"sqlite:///{self.target}", "table": "permits", "create_table": True}
        return Drawer(self.world, office, "sink", self.grants[office.id], into)

    def drawn(self) -> dict[str, int]:
        """Return the permits of the target with their versions; each is there once."""
        with closing(sqlite3.connect(self.target)) as connection:
            rows = connection.execute("SELECT permit_no, version FROM permits WHERE _deleted_at IS NULL").fetchall()
        assert len(rows) == len(dict(rows))
        return dict(rows)

    def upgrade(self) -> None:
        self.world.stop()
        self.world.programs = now = Programs()
        now.run("pool", "migrate", "--data", str(self.world.data))
        self.world.serve()
        reach_again(self.world, self.provider, self.labour, self.civil)

    def head(self, office: Office) -> AdminClient:
        return office.account("sharing_office_head")

    def renew(self) -> None:
        """A grant of before is renewed: its target goes on by itself, without a double."""
        old, head = self.grants[self.labour.id], self.head(self.labour)
        until = (datetime.now(UTC) + timedelta(days=60)).isoformat()
        draft = {**head.get(f"/grants/{old}/renewal"), "legal_basis": "社会保险法 第七十四条", "expires": until}
        renewal = str(head.post("/requests", draft)["id"])
        assert self.provider.approve(renewal)["state"] == "active"
        assert head.get(f"/grants/{old}")["state"] == "completed"
        self.permits.publish({"e0": 2})
        said = self.drawer.draw()
        assert f"the grant {old} was renewed" in said
        assert "1 records received: 1 written" in said
        assert self.drawn() == {**self.expected, "e0": 2}
        self.grants[self.labour.id] = renewal

    def correct(self) -> None:
        """A value of before is corrected: who received it before the upgrade is told, by the releases of then."""
        body = {
            "grant": self.grants[self.civil.id], "record_key": self.key, "field": "district", "claimed": "西城",
            "claim_evidence": "纸质许可证",
        }  # fmt: skip
        ticket = self.head(self.civil).post("/corrections", body)["id"]
        self.head(self.provider).post(f"/corrections/{ticket}/acceptance")
        mark = bytes([int(Mark(Operation.CORRECT, KeyOccurrence.AGAIN))])
        with self.world.client(self.permits.source) as pool:
            topic = self.permits.lane.lane.topic
            schema_id, text = pool.schema(topic)
            row = {"permit_no": "doubted", "version": 1, "district": "西城", "note": None}
            list(pool.publish(topic, [self.permits.lane.batch(framed(schema_id, text, [row]), marks=mark)]))
        self.head(self.provider).post(f"/corrections/{ticket}/correction", {})
        told = {"ticket": ticket}
        wait_for(lambda: self.world.root.list("/correction-notices", told), "who received it is told")
        notices = self.world.root.list("/correction-notices", told)
        assert {one["consumer"] for one in notices} == {self.labour.id, self.civil.id}
        assert "1 records received: 1 written" in self.drawer.draw()

    def succeed(self) -> None:
        """A department of before merges: its grants and its request go over, and its successor's target goes on."""
        new = self.world.department("新人社局")
        for former in (self.labour, self.civil):
            merger = {"into": new.id, "reason": "机构改革方案"}
            self.world.root.post(f"/departments/{former.id}/merger", merger)
        moved = self.world.root.get(f"/grants/{self.grants[self.labour.id]}")
        assert (moved["consumer"], moved["state"]) == (new.id, "active")
        assert self.head(new).get(f"/requests/{self.waiting}")["consumer"] == new.id
        assert self.provider.approve(self.waiting)["state"] == "active"
        self.grants[new.id] = self.grants[self.labour.id]
        self.permits.publish({"e1": 2})
        assert "1 records received: 1 written" in self._drawer(new).draw()
        assert self.drawn() == {**self.expected, "e0": 2, "e1": 2}


def test_grants_of_before_the_law_of_sharing_are_renewed_corrected_and_inherited(tmp_path: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="pool-upgrade-"))
    folder.chmod(0o755)  # the embedded PostgreSQL's own user must pass through
    world = World(folder, programs=EarlierPrograms(UNRULED, tmp_path / "before", two_persons=True))
    try:
        world.initialise()
        world.serve()
        ruled = Ruled(world)
        ruled.upgrade()
        for follow in (ruled.renew, ruled.correct, ruled.succeed):
            follow()
        world.stop()
        data = world.data
        verified = world.programs.run(
            "pool", "audit", "verify", "--files", str(data / "log"), "--key", str(data / "log.pub"),
        )  # fmt: skip
        assert "nothing is wrong" in verified.stdout
    finally:
        world.close()
        print((folder / "pool.log").read_text()[-4000:] if (folder / "pool.log").exists() else "")
        shutil.rmtree(folder, ignore_errors=True)
