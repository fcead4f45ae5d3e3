"""The same on a server that somebody else administers: the pool's role owns its database and is no superuser.

With the departments' own connectors: the source publishes again what was lost, and nothing else, and the consumer's
table ends with exactly the rows of the source, each once.
"""

import json
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from connectors.cli import main as pool_connect
from schemas.errors import PoolError, Reason, RefusedError
from tests.kit.patience import wait_for
from tests.kit.world import in_process
from tests.kit.world.lost import TOPIC, City, refused_fetch, restored, serving, settle, verify
from tests.kit.world.postgres import ExternalServer, external_server
from tests.kit.world.world import World

pytestmark = [pytest.mark.postgres, pytest.mark.e2e, pytest.mark.slow]
Permits = dict[str, int]  # version by number


class Departments:
    """A source with a table of its own, and a consumer with another: `pool-connect` runs once for each."""

    def __init__(self, city: City) -> None:
        self.world = city.world
        self.table, self.target = (self.world.folder / f"{name}.db" for name in ("source", "target"))
        self.permits: Permits = {}
        for office, name in ((city.provider, "registry"), (city.consumer, "sink")):
            office.enrol(name)
        grant = city.consumer.request(TOPIC, ["permit_no", "version"])
        city.provider.approve(grant)
        self.source = self._config(city.provider.id, "registry", {
            "source": {"kind": "sql", "url": f"sqlite:///{self.table}"},
            "publish": [{
                "resource": TOPIC, "table": "permits", "on_delete": "retract", "deletes": {"stop_if_more_than": "100%"},
            }],
        })  # fmt: skip
        into = {"kind": "sql", "url": f"sqlite:///{self.target}", "table": "permits", "create_table": True}
        self.sink = self._config(city.consumer.id, "sink", {
            "subscribe": [{"grant": grant, "purpose": "eligibility", "case": "STANDING-1", "into": into}],
        })  # fmt: skip

    def publish(self, permits: Permits) -> str:
        """Let the source's table hold these permits, and publish what changed; return what the connector said."""
        with closing(sqlite3.connect(self.table)) as sql, sql:
            sql.execute(
                "CREATE TABLE IF NOT EXISTS permits "
                "(permit_no TEXT NOT NULL PRIMARY KEY, version INTEGER NOT NULL, district TEXT NOT NULL, note TEXT)"
            )
            sql.execute("DELETE FROM permits")
            sql.executemany("INSERT INTO permits VALUES (?, ?, '东城', NULL)", permits.items())
        self.permits = dict(permits)
        return self._run(self.source)

    def draw(self) -> list[tuple[str, int]]:
        """Draw, and return the rows of the target that are not withdrawn."""
        self._run(self.sink)
        with closing(sqlite3.connect(self.target)) as sql:
            return sql.execute(
                "SELECT permit_no, version FROM permits WHERE _deleted_at IS NULL ORDER BY 1, 2"
            ).fetchall()

    def _config(self, department: str, name: str, rest: dict[str, object]) -> Path:
        identity = self.world.folder / "identities" / department / name
        file = self.world.folder / f"{name}.yaml"
        file.write_text(json.dumps({"version": 1, "connector": name, "exchange": {"identity": str(identity)}, **rest}))
        return file

    def _run(self, file: Path) -> str:
        content = json.loads(file.read_text())
        content["exchange"]["gateway"] = self.world.addresses["gateway"]
        file.write_text(json.dumps(content, ensure_ascii=False))
        done = in_process.run(pool_connect, "run", file, "--once")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def server() -> Iterator[ExternalServer]:
    with external_server() as made:
        yield made


def address(folder: Path, name: str, url: sa.URL) -> str:
    """Write an address as an operator does, and return the reference to it."""
    file = folder / name
    file.touch(mode=0o600)
    file.write_text(url.render_as_string(hide_password=False) + "\n")
    return f"${{file:{file}}}"


def test_a_pool_on_an_external_server_is_restored_into_another_database(server: ExternalServer, tmp_path: Path) -> None:
    first, second = server.database("pool_a"), server.database("pool_b")
    with World.start(database=address(tmp_path, "a", first)) as world:
        city = City(world)
        departments = Departments(city)
        city.publish(range(30), 1)
        departments.publish({f"q{n}": 1 for n in range(20)})
        assert len(departments.draw()) == 50
        city.back_up()
        after = {f"q{n}": 2 if n < 5 else 1 for n in range(25) if n != 9}
        departments.publish(after)
        city.go_on()
        (world.folder / "kept").write_text(city.checkpoint)
        world.stop(signal.SIGKILL)
        server.lose(first)
        lost = world.data / "log"
        with restored(city, "again", "--log", lost, "--since", world.folder / "kept", "--erasures",
                      world.data / "erasures.jsonl", "--database", address(tmp_path, "b", second)) as said:  # fmt: skip
            assert f"terminated      {city.ended}" in said
            assert f"lane            {city.lane.lane}: batch 1, was 3" in said
            assert refused_fetch(city, city.kept, city.drawer) is Reason.RESTORE_UNSETTLED
            departments.publish(after)  # again what the lost batches held
            with world.client(city.source) as pool:
                head = pool.resume(city.lane.lane.topic)
            city.lane.sequence, city.lane.root = head.sequence, head.root
            city.publish(range(30, 40), 1)
            city.publish(range(5), 2)
            lanes = world.root.get("/restore")["lanes"]
            assert len(lanes) == 2
            assert all(one["now"] >= one["before"] for one in lanes), lanes
            settle(world)
            wait_for(lambda: serving(city), "records are released again")
            with pytest.raises(PoolError) as refused:
                city.draw(city.kept, city.thief)
            assert refused.value.reason is Reason.CERTIFICATE_REVOKED
            assert refused_fetch(city, city.ended, city.drawer) is Reason.GRANT_NOT_ACTIVE
            with pytest.raises(RefusedError):
                world.remote(world.people.tokens["clerk-1"]).get("/audit/entries")
            expected = {**{f"p{n}": 2 if n < 5 else 1 for n in range(40) if n != 7}, **after}
            assert departments.draw() == sorted(expected.items())
            drawn, _ = city.draw(city.kept, city.drawer)
            assert drawn == expected
        # Offline, and compared with the database by an auditor whose role reads and changes nothing.
        address(tmp_path, "auditor", server.reader(second))
        compared = ("--database", tmp_path / "auditor", "--secrets", world.data / "secrets")
        for arguments in ((), compared):
            done = verify(city, "--since", world.folder / "kept", *arguments)
            assert done.returncode == 0, done.stdout
            assert "the pool was restored from the backup of" in done.stdout
            assert "its database did not have the entries" in done.stdout
            assert "nothing is wrong" in done.stdout
