"""A pool loses its database and is restored: nobody gets what was revoked, ended or erased since the backup."""

import json
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from exchange.audit.tiles import ENTRIES, WIDTH, TileFiles, decode_bundle, tile_width
from schemas.errors import PoolError, Reason, RefusedError, UnavailableError
from tests.kit.patience import wait_for
from tests.kit.share import count, random_of
from tests.kit.world.lost import TOPIC, City, cli, readyz, refused_fetch, restored, serving, settle, verify
from tests.kit.world.world import Office, World, kill_postmaster

pytestmark = [pytest.mark.postgres, pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture(scope="module")
def city() -> Iterator[City]:
    """A city whose database is lost; its old folder is `lost`, where the log survives."""
    with World.start() as world:
        city = City(world)
        city.publish(range(30), 1)
        assert len(city.draw(city.kept, city.drawer)[0]) == 30
        edited = edit_a_grant(city)
        (world.folder / "edited").write_text(edited)
        office = world.department("统计局")
        ordered = office.request(TOPIC, ["permit_no"])
        city.provider.approve(ordered)
        city.back_up()
        for event in ("suspend", "terminate"):
            city.head.post(f"/grants/{edited}/{event}", {"reason": "its row was edited"})
        (world.folder / "ordered").write_text(json.dumps(order_a_rectification(world, office, ordered)))
        city.go_on()
        assert "p7" not in city.draw(city.kept, city.drawer)[0]
        (world.folder / "kept").write_text(city.checkpoint)
        world.stop(signal.SIGKILL)
        kill_postmaster(world.data)
        world.data.rename(world.folder / "lost")
        shutil.rmtree(world.folder / "lost" / "pg")
        yield city


def order_a_rectification(world: World, office: Office, grant: str) -> dict[str, str]:
    """Report, confirm and order about a grant of the backup; and in another case, whose order is settled."""
    second, root = world.account("ma-da", "data_authority"), world.root
    cases = [
        second.post("/violations", {"code": code, "grant": grant, "reason": "举报"})["id"] for code in ("C3", "C6")
    ]
    for case in cases:
        root.post(f"/violations/{case}/confirm", {"reason": "查实"})
        root.post(f"/violations/{case}/order", {"reason": "删除多取的数据"})
    office.account("sharing_office_head").post(f"/violations/{cases[1]}/reply", {"reason": "已删除"})
    root.post(f"/violations/{cases[1]}/accept", {"reason": "已核"})
    return {"case": cases[0], "grant": grant}


def edit_a_grant(city: City) -> str:
    """Let the owner of the database edit the row of an active grant; return its id."""
    grant = city.consumer.request(TOPIC, ["permit_no"])
    city.provider.approve(grant)
    engine = sa.create_engine((city.world.data / "database-url").read_text().strip())
    with engine.begin() as connection:
        change = sa.text("UPDATE access_grant SET text = replace(text, 'STANDING-1', 'STANDING-2') WHERE id = :id")
        assert connection.execute(change, {"id": grant}).rowcount == 1
    engine.dispose()
    return grant


def test_where_the_log_survives_what_was_revoked_ended_and_erased_stays_so(city: City) -> None:
    world = city.world
    sequence, root = city.lane.sequence, city.lane.root
    with restored(city, "restored", "--log", world.folder / "lost" / "log", "--since", world.folder / "kept") as said:
        assert f"terminated      {city.ended}" in said
        assert "clerk-1" in said
        # One that was edited before the backup does not keep the pool from being restored, and is ended as well.
        edited = (world.folder / "edited").read_text()
        assert next(line for line in said.splitlines() if "terminated  " in line).count(edited) == 1
        assert city.head_again().get(f"/grants/{edited}")["state"] == "terminated"
        # Nothing is released before two persons have settled it, and nobody else may.
        assert refused_fetch(city, city.kept, city.drawer) is Reason.RESTORE_UNSETTLED
        with pytest.raises(RefusedError):
            city.head_again().post("/restore/settlements")
        status = world.root.get("/restore")
        # An order that the database has lost is told, and its grant is suspended until somebody looks at it.
        ordered = json.loads((world.folder / "ordered").read_text())
        assert f"order LOST      violation case {ordered['case']}, grant {ordered['grant']}" in said
        assert status["orders"] == [ordered]
        assert city.head_again().get(f"/grants/{ordered['grant']}")["state"] == "suspended"
        assert not status["settled"]
        assert readyz(world) == {"restore": Reason.RESTORE_UNSETTLED}
        assert status["lanes"] == [{"lane": str(city.lane.lane), "restored": 1, "before": 3, "now": 1}]
        # Its connector publishes the rest again meanwhile.
        with world.client(city.source) as pool:
            head = pool.resume(city.lane.lane.topic)
        assert head.sequence == 1
        city.lane.sequence, city.lane.root = head.sequence, head.root
        city.publish(range(30, 40), 1)
        city.publish(range(5), 2)
        assert world.root.get("/restore")["lanes"][0]["now"] == 3
        settle(world)
        wait_for(lambda: serving(city), "records are released again")
        assert world.root.get("/restore")["settled"]
        wait_for(lambda: readyz(world) == {}, "the pool is ready")
        # The revoked, the ended and the erased.
        with pytest.raises(PoolError) as refused:
            city.draw(city.kept, city.thief)
        assert refused.value.reason is Reason.CERTIFICATE_REVOKED
        assert refused_fetch(city, city.ended, city.drawer) is Reason.GRANT_NOT_ACTIVE
        with pytest.raises(RefusedError) as refused_clerk:
            world.remote(world.people.tokens["clerk-1"]).get("/audit/entries")
        assert refused_clerk.value.reason is Reason.CERTIFICATE_REVOKED
        # The grant that changed nothing goes on, but for the catalogue's doubt; its consumer starts again.
        assert refused_fetch(city, city.kept, city.drawer, city.position) is Reason.TOPIC_GENERATION_CHANGED
        drawn, _ = city.draw(city.kept, city.drawer)
        assert drawn == {f"p{n}": 2 if n < 5 else 1 for n in range(40) if n != 7}
    city.lane.sequence, city.lane.root = sequence, root
    done = verify(city, "--since", world.folder / "kept")
    assert done.returncode == 0, done.stdout
    assert "the pool was restored from the backup of" in done.stdout


def test_where_the_log_is_lost_too_everything_is_suspended_and_another_log_begins(city: City) -> None:
    world = city.world
    with restored(city, "from-backup-alone", "--since", world.folder / "kept") as said:
        assert "entries more" in said
        assert "/g" in (world.data / "pool.toml").read_text()
        assert refused_fetch(city, city.kept, city.drawer) is Reason.RESTORE_UNSETTLED
        city.lane.sequence, city.lane.root = 1, bytes(32)
        with pytest.raises(UnavailableError) as refused:
            city.publish(range(1), 3)
        assert refused.value.reason is Reason.RESTORE_UNSETTLED
        settle(world)
        wait_for(lambda: world.root.get("/restore")["settled"], "it is settled")
        edited = (world.folder / "edited").read_text()
        assert city.head_again().get(f"/grants/{edited}")["state"] == "suspended"
        for grant in (city.kept, city.ended):
            wait_for(
                lambda grant=grant: refused_fetch(city, grant, city.drawer) is Reason.GRANT_SUSPENDED,
                "every grant is suspended",
            )
        city.head_again().post(f"/grants/{city.kept}/rectified", {"reason": "looked at it"})
        assert len(city.draw(city.kept, city.drawer)[0]) == 30
    assert verify(city).returncode == 0
    old = verify(city, "--since", world.folder / "kept")
    assert old.returncode == 1, "the log of before was lost, and the checkpoint shows it"


def test_a_restore_never_goes_over_an_old_folder(city: City) -> None:
    done = cli("backup", "restore", city.backup, "--data", city.world.folder / "lost", "--sealed",
               city.world.folder / "sealed", "--key-file", city.key)  # fmt: skip
    assert done.returncode == 1
    assert "already_exists" in done.stderr


def test_a_log_that_was_cut_back_is_no_surviving_log(city: City, tmp_path: Path) -> None:
    """Somebody who can write to the folder puts the backup's log there, which does not know of the revocation."""
    done = cli("backup", "restore", city.backup, "--data", tmp_path / "d", "--sealed", city.world.folder / "sealed",
               "--key-file", city.key, "--log", city.backup / "log", "--since", city.world.folder / "kept")  # fmt: skip
    assert done.returncode == 1
    assert "log.shorter" in done.stderr
    assert not (tmp_path / "d").exists()


def surviving(log: Path) -> list[dict[str, Any]]:
    """Return the entries that a log's folder holds under its checkpoint."""
    size = int((log / "checkpoint").read_text().split("\n")[1])
    files = TileFiles(log)
    leaves: list[bytes] = []
    for number in range((size + WIDTH - 1) // WIDTH):
        leaves += decode_bundle(files.tile(ENTRIES, number, tile_width(0, number, size)) or b"")
    return [json.loads(leaf) for leaf in leaves]


@pytest.mark.counted
@pytest.mark.timeout(3600)
def test_at_any_moment_of_the_loss_what_the_log_knows_holds(tmp_path: Path) -> None:
    """Each point: back up, go on at random, lose the database at a random moment, restore; and on from there."""
    points, random = count(20, 0), random_of("restore")
    if not points:
        pytest.skip("make torture loses the database at 20 random moments")
    with World.start() as world:
        city = City(world)
        city.publish(range(30), 1)
        for point in range(points):
            city.reconnect()
            name = f"thief-{point}"
            thief, ended = city.consumer.enrol(name), city.consumer.request(TOPIC, ["permit_no", "version"])
            city.provider.approve(ended)
            city.key, city.backup = world.folder / f"key-{point}", world.folder / f"backup-{point}"
            sealed = world.folder / f"sealed-{point}"
            assert cli("backup", "new-key", city.key).returncode == 0
            assert cli("backup", "create", "--data", world.data, "--out", city.backup, "--sealed", sealed,
                       "--key-file", city.key).returncode == 0  # fmt: skip
            acts = [
                lambda point=point: city.publish(range(30), point + 2),
                lambda ended=ended: city.head.post(f"/grants/{ended}/suspend", {"reason": "under review"}),
                lambda name=name: world.root.post("/connectors/revocations", {
                    "department": city.consumer.id, "connector": name, "reason": "stolen",
                }),
            ]  # fmt: skip
            for act in random.sample(acts, random.randint(1, len(acts))):
                act()
                time.sleep(random.random())
            head = city.lane.sequence
            world.stop(signal.SIGKILL)
            kill_postmaster(world.data)
            log = world.data / "log"
            known = surviving(log)
            done = cli("backup", "restore", city.backup, "--data", world.folder / f"r{point}", "--sealed", sealed,
                       "--key-file", city.key, "--log", log)  # fmt: skip
            assert done.returncode == 0, (point, done.stdout, done.stderr)
            world.data = world.folder / f"r{point}"
            world.serve()
            settle(world)
            wait_for(lambda: serving(city), "records are released again")
            revoked = any(e["action"] == "identity:connector:revoke" and e["resource"] == name for e in known)
            suspended = any(e.get("grant", {}).get("id") == ended and e["action"].endswith(":suspend") for e in known)
            if revoked:
                assert refused_fetch(city, city.kept, thief) is Reason.CERTIFICATE_REVOKED
            if suspended:
                assert refused_fetch(city, ended, city.drawer) is Reason.GRANT_SUSPENDED
            with world.client(city.source) as pool:
                at = pool.resume(city.lane.lane.topic)
            assert at.sequence <= head
            city.lane.sequence, city.lane.root = at.sequence, at.root
            city.publish(range(30), 1_000 + point)
            assert city.draw(city.kept, city.drawer)[0] == {f"p{n}": 1_000 + point for n in range(30)}
            assert verify(city).returncode == 0
