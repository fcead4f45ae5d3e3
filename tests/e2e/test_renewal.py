"""A grant is renewed: its consumer's targets go on without one double and without a lost withdrawal."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from schemas.errors import PoolError, Reason
from tests.kit.patience import wait_for
from tests.kit.world import postgres
from tests.kit.world.permits import EAST, PERMITS, WEST, Drawer, Permits, sql, table
from tests.kit.world.world import Office, World

pytestmark = [pytest.mark.e2e, pytest.mark.postgres]

EASTERN = {f"e{number}": 1 for number in range(20)}
WESTERN = {f"w{number}": 1 for number in range(10)}
BASIS = "社会保险法 第七十四条"


class Town:
    """A provider, and a consumer of the permits of the east."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.permits = Permits(world, "许可局", "permits.v1")
        self.provider = self.permits.office
        self.permits.publish(EASTERN)
        self.permits.publish(WESTERN, "西城")

    def consumer(self, name: str, **terms: Any) -> tuple[Office, str]:
        """Return a department and its grant."""
        office = self.world.department(name)
        grant = office.request(self.permits.topic, PERMITS, **{"row_filter": EAST, **terms})
        self.provider.approve(grant)
        return office, grant

    def pool(self, office: Office, *words: str) -> str:
        """Run a command as the head of a department's sharing office; return what it printed."""
        account = office.account("sharing_office_head")
        token = self.world.folder / "head.token"
        token.write_text(account._headers["authorization"].removeprefix("Bearer "))
        noun, *rest = words
        options = ("--data", str(self.world.data), "--token-file", str(token))
        return self.world.programs.run("pool", noun, *options, *rest).stdout

    def renew(self, office: Office, grant: str, days: int = 60, **changes: Any) -> str:
        """Ask for a renewal; return its id."""
        head = office.account("sharing_office_head")
        body = {**head.get(f"/grants/{grant}/renewal"), "legal_basis": BASIS, "expires": until(days), **changes}
        return str(head.post("/requests", body)["id"])

    def grant(self, grant: str) -> dict[str, Any]:
        return dict(self.provider.account("sharing_office_head").get(f"/grants/{grant}"))


def until(days: int) -> str:
    return (datetime.now(UTC) + timedelta(days=days)).isoformat()


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    with World.start() as world:
        yield Town(world)


@pytest.fixture
def target(postgres_server: sa.URL) -> Iterator[sa.URL]:
    with postgres.fresh_database(postgres_server) as url:
        yield url


def findings(world: World) -> list[str]:
    """Return what a verification of the files of the log and of the database finds."""
    data = world.data
    done = world.programs.run(
        "pool", "audit", "verify", "--files", str(data / "log"), "--key", str(data / "log.pub"),
        "--database", str(data / "database-url"), "--secrets", str(data / "secrets"), check=False,
    )  # fmt: skip
    assert done.stdout, done.stderr
    return [line for line in done.stdout.splitlines()[:-1] if "; the last signature" not in line]


def refused(act: Any, *arguments: Any, **named: Any) -> Reason:
    with pytest.raises(PoolError) as caught:
        act(*arguments, **named)
    return caught.value.reason


def test_a_table_goes_on_under_the_renewal_without_a_double_or_a_lost_withdrawal(town: Town, target: sa.URL) -> None:
    office, old = town.consumer("人社局")
    drawer = Drawer(town.world, office, "sink", old, sql(town.world.folder, target))
    assert "20 records received: 20 written, 0 withdrawn" in drawer.draw()
    # What happens between the last draw and the renewal: one permit changes, one leaves the filter, one is void.
    town.permits.publish({"e0": 2})
    town.permits.publish({"e1": 2}, "西城")
    town.permits.void("e2")
    printed = json.loads(town.pool(office, "grant", "renew", old, "--until", until(60), "--basis", BASIS))
    new = printed["id"]
    assert (printed["renews"], printed["state"]) == (old, "submitted")
    assert town.grant(old)["state"] == "active", "it stays as it is until the renewal is approved"
    shown = town.pool(town.provider, "grant", "show", new)
    assert f"it renews grant {old}" in shown
    assert "changes nothing but its end" in shown
    assert "together with grants" not in shown, "what it takes the place of is not held beside it"
    town.provider.approve(new)
    assert town.grant(old)["state"] == "completed"
    assert {town.grant(new)[name] for name in ("stream", "first", "renews")} == {old}

    said = drawer.draw()
    assert f"the grant {old} was renewed: {old} goes on under {new}" in said
    assert "3 records received: 1 written, 2 withdrawn" in said
    expected = {**EASTERN, "e0": 2}
    del expected["e1"], expected["e2"]
    assert table(target) == expected
    assert "0 records received" in drawer.draw()
    # A second renewal; what is delivered under any of the three withdraws once.
    town.permits.publish({"e3": 2}, "西城")
    newest = town.renew(office, new, 90)
    town.provider.approve(newest)
    town.permits.void("e4")
    assert "2 records received: 0 written, 2 withdrawn" in drawer.draw()
    del expected["e3"], expected["e4"]
    assert table(target) == expected
    # A configuration that names the newest grant goes on after what was acknowledged.
    drawer.grant = newest
    town.permits.publish({"e5": 2})
    assert "1 records received: 1 written, 0 withdrawn" in drawer.draw()
    assert table(target) == {**expected, "e5": 2}
    # The log shows no release that was left out, over the three grants.
    assert findings(town.world) == []


def test_a_renewal_with_other_rows_withdraws_what_leaves_and_brings_what_comes(town: Town, target: sa.URL) -> None:
    office, old = town.consumer("民政局")
    drawer = Drawer(town.world, office, "sink", old, sql(town.world.folder, target))
    drawer.draw()
    eastern = table(target)
    assert "e19" in eastern
    keys = record_keys(target)
    new = town.renew(office, old, row_filter=None)
    assert f"it renews grant {old}" in town.pool(town.provider, "grant", "show", new)
    assert "changes the rows" in town.pool(town.provider, "grant", "show", new)
    town.provider.approve(new)
    assert "the grant was renewed with another view" in drawer.draw()
    everything = table(target)
    assert everything == {**eastern, **{name: everything[name] for name in everything if name not in eastern}}
    assert set(WESTERN) < set(everything)
    assert {name: key for name, key in record_keys(target).items() if name in keys} == keys, "the same record keys"
    narrower = town.renew(office, new, 90, row_filter=WEST)
    town.provider.approve(narrower)
    drawer.draw()
    assert table(target) == {name: version for name, version in everything.items() if name not in eastern}
    assert "0 records received" in drawer.draw()


def test_of_a_renewal_with_other_fields_what_the_consumer_holds_already_is_counted(town: Town) -> None:
    office, old = town.consumer("统计局")
    new = town.renew(office, old, fields=["permit_no", "note"])
    head = town.provider.account("sharing_office_head")
    together = head.get(f"/grants/{new}")["review"]["together"]
    assert together["grants"] == [old], "the same record keys: both deliveries can be joined"
    assert {*PERMITS, "note"} <= {*together["fields"]}
    assert f"together with grants {old} this department will hold" in town.pool(town.provider, "grant", "show", new)
    town.provider.approve(new)
    [decided] = [
        one["entry"]["data"]
        for one in town.world.root.list("/audit/entries", {"action": "exchange:grant:approve", "grant": new})
        if one["entry"]["decision"] == "allow"
    ]
    assert decided["together_with"] == [old]
    assert (town.grant(old)["state"], town.grant(new)["state"]) == ("completed", "active")
    assert head.get(f"/grants/{new}")["review"]["together"]["ended"] == [old]


def test_what_was_delivered_with_the_same_keys_counts_after_its_end_too(town: Town) -> None:
    """Of the grant that a renewal renews, where it has expired before the approval, and of those before it."""
    soon = (datetime.now(UTC) + timedelta(seconds=4)).isoformat()
    office, first = town.consumer("审计局", expires=soon)
    head = town.provider.account("sharing_office_head")
    second = town.renew(office, first, fields=["permit_no", "note"])
    wait_for(lambda: town.grant(first)["state"] == "expired", "the grant that is renewed ends")
    assert head.get(f"/grants/{second}")["review"]["together"]["grants"] == [first]
    town.provider.approve(second)
    third = town.renew(office, second, 90, fields=["district"])
    together = head.get(f"/grants/{third}")["review"]["together"]
    assert together["grants"] == [first, second]
    assert {*PERMITS, "note", "district"} == {*together["fields"]}
    fourth = town.renew(office, second, 90)
    assert head.get(f"/grants/{fourth}")["review"]["together"]["grants"] == [first]
    town.provider.approve(third)
    assert head.get(f"/grants/{third}")["review"]["together"]["grants"] == [], "it is decided on"


def record_keys(url: sa.URL) -> dict[str, str]:
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        keys: dict[str, str] = dict(
            map(tuple, connection.exec_driver_sql("SELECT permit_no, _record_key FROM permits"))
        )
    engine.dispose()
    return keys


def test_a_folder_goes_on_under_the_renewal(town: Town, tmp_path: Path) -> None:
    office, old = town.consumer("税务局")
    drawer = Drawer(town.world, office, "files", old, {"kind": "jsonl", "path": str(tmp_path / "parts")})
    drawer.draw()
    before = lines(tmp_path / "parts")
    town.provider.approve(town.renew(office, old))
    town.permits.publish({"e6": 7})
    assert "1 records received" in drawer.draw()
    after = lines(tmp_path / "parts")
    assert after[: len(before)] == before
    assert len(after) == len(before) + 1
    assert after[-1]["_record_key"] in {line["_record_key"] for line in before}


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for part in sorted(folder.glob("part-*.jsonl")) for line in part.read_text().splitlines()]


def test_a_renewal_gets_around_neither_a_suspension_nor_another_renewal_nor_the_days_quota(town: Town) -> None:
    office, old = town.consumer("统计局", quota_per_day=21)
    identity = office.enrol("reader")
    declared = {"purpose": "eligibility", "case": "STANDING-1"}
    with town.world.client(identity) as pool:
        drawn = pool.fetch(old, max_records=15, **declared)
        pool.commit(old, drawn.next_position, **declared)
        first, second = town.renew(office, old, 60), town.renew(office, old, 90)
        head = town.provider.account("sharing_office_head")
        head.post(f"/grants/{old}/suspend", {"reason": "试停"})
        assert refused(town.renew, office, old) is Reason.TRANSITION_NOT_ALLOWED
        assert refused(town.provider.approve, first) is Reason.TRANSITION_NOT_ALLOWED
        head.post(f"/grants/{old}/rectified", {"reason": "已整改"})
        town.provider.approve(first)
        assert refused(town.provider.approve, second) is Reason.TRANSITION_NOT_ALLOWED
        # The old grant names the one that goes on, to its consumer alone.
        for call in (lambda: pool.describe(old), lambda: pool.fetch(old, **declared)):
            with pytest.raises(PoolError) as caught:
                call()
            assert (caught.value.reason, caught.value.details["grant"]) == (Reason.GRANT_RENEWED, first)
        stranger = town.world.department("外人局").enrol("reader")
        with town.world.client(stranger) as other:
            assert refused(other.fetch, old, **declared) is Reason.GRANT_OTHER_CONSUMER
        # 15 of the day's 21 records left under the old grant: a release of more than 6 does not fit any more.
        assert refused(pool.fetch, first, position=b"\x00", max_records=7, **declared) is Reason.QUOTA_EXHAUSTED
        assert len(pool.fetch(first, max_records=3, **declared).values) == 3
    entries = head.get("/audit/entries", {"action": "exchange:grant:supersede"})
    mine = [one["entry"] for one in entries if one["entry"]["grant"]["id"] == old]
    assert [one["data"]["renewed_by"] for one in mine] == [first]
