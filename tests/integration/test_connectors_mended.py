"""Quarantined rows of a source: exported, mended by a person, published by `replay --rows`, each once."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from connectors import cli
from connectors.port import ChangePosition
from connectors.publishing.mended_rows import MendedReport, MendedRow, replay_rows
from connectors.publishing.publication import Publication
from connectors.runtime import service
from connectors.runtime.exit_codes import ExitCode
from connectors.sources.pool.pool_source import PoolChangeSource
from connectors.state.ledger import Ledger
from connectors.state.quarantine import read_entries
from schemas.errors import Reason, UnavailableError
from schemas.names import Topic
from tests.integration.test_connectors_pool import HERE, Bridge, Died, put
from tests.kit.twins.pool_twin import PROVIDER
from tests.kit.world.department import HEADER, TOPIC, Department, row
from tests.kit.world.target_consumer import Client

CONFIG = f"""\
version: 1
connector: drop
exchange: {{ identity: identity/ }}
source: {{ kind: files, path: drop/, ready_when: unchanged for 0s }}
publish:
  - resource: {TOPIC}
    quarantine: {{ stop_if_more_than: 100% }}
"""


class Machine(Department):
    """A department at its terminal."""

    def command(self, name: str, *words: str) -> tuple[int, str]:
        done = CliRunner().invoke(cli.app, [*name.split(), str(self.folder / "c.yaml"), *words])
        return done.exit_code, f"{done.output}{done.exception or ''}"

    def open_entries(self) -> list[Any]:
        ledger = Ledger(self.folder / "state" / "drop" / f"{TOPIC}.sqlite3", clock=lambda: datetime.now(UTC))
        try:
            return list(read_entries(ledger.sql))
        finally:
            ledger.close()

    def exported(self, name: str = "bad.jsonl") -> list[dict[str, Any]]:
        code, said = self.command("quarantine export", "--rows", str(self.folder / name))
        assert code == 0, said
        assert (self.folder / name).stat().st_mode & 0o777 == 0o600
        return [json.loads(line) for line in (self.folder / name).read_text().splitlines()]

    def mend(self, lines: list[dict[str, Any]], name: str = "mended.jsonl") -> Path:
        path = self.folder / name
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        return path


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    made = Machine(tmp_path)
    (tmp_path / "c.yaml").write_text(CONFIG)
    client = Client(made)
    client._client = made.twin.client(PROVIDER, "drop", made.key)
    monkeypatch.setattr(cli, "_connect", lambda *_: client)
    monkeypatch.setattr(service, "stop_on_signals", lambda _: None)
    bad = [row(7, amount="a lot", note='𠮷, "x"'), row(8, since="yesterday"), row(9, amount="1.234")]
    made.put([row(1), row(2), *bad])
    code, said = made.command("run", "--once")
    assert code == 0, said
    assert len(made.twin.state(TOPIC)) == 2
    return made


def test_a_mended_row_is_published_once_and_its_entry_closed(machine: Machine) -> None:
    lines = machine.exported()
    assert [line["row"]["id"] for line in lines] == ["0007", "0008", "0009"]
    assert lines[0]["row"]["note"] == '𠮷, "x"'
    assert set(lines[0]["row"]) == set(HEADER)
    assert (lines[0]["code"], lines[0]["field"], lines[0]["portion"]) == ("TYPE", "amount", "rows.csv")
    lines[0]["row"]["amount"], lines[1]["row"]["since"] = "7.70", None
    mended = machine.mend(lines)
    code, said = machine.command("replay", "--rows", str(mended))
    assert code == ExitCode.QUARANTINE, said
    assert "2 published, 0 unchanged, 0 overtaken" in said
    assert "PRECISION_LOSS" in said
    assert "1.234" not in said
    state = machine.twin.state(TOPIC)
    assert (str(state[b"0007"]["amount"]), state[b"0008"]["since"]) == ("7.70", None)
    (left,) = machine.open_entries()
    assert (left.portion, left.code.value) == ("rows.csv", "PRECISION_LOSS"), "it stays as it was"
    records = len(machine.twin.records(TOPIC))
    code, said = machine.command("replay", "--rows", str(mended))
    assert "0 published, 0 unchanged, 0 overtaken, 2 of entries that are closed, 1 rejected" in said
    assert len(machine.twin.records(TOPIC)) == records


def test_a_crash_before_the_entries_are_closed_publishes_nothing_twice(machine: Machine) -> None:
    lines = machine.exported()[:1]
    lines[0]["row"]["amount"] = "7.70"
    mended = machine.mend(lines)

    def die(point: str) -> None:
        if point == "after append":
            machine.twin.fail = lambda _: None
            raise Died

    machine.twin.fail = die
    with pytest.raises(Died):
        CliRunner().invoke(
            cli.app, ["replay", str(machine.folder / "c.yaml"), "--rows", str(mended)], catch_exceptions=False
        )
    assert len(machine.open_entries()) == 3
    code, said = machine.command("replay", "--rows", str(mended))
    assert code == 0, said
    assert "0 published, 1 unchanged" in said
    assert [each.key for each in machine.twin.records(TOPIC)].count(b"0007") == 1
    assert len(machine.open_entries()) == 2


def test_a_file_that_is_not_of_the_form_publishes_nothing(machine: Machine) -> None:
    good = machine.exported()[0]
    good["row"]["amount"] = "7.70"
    for lines in (
        [good, good],
        [good, {"id": "x", "row": {}}],
        [good, {"id": 2, "row": [1]}],
        [good, {"row": {"id": "1"}}],
    ):
        _, said = machine.command("replay", "--rows", str(machine.mend(lines)))
        assert "mended.jsonl:2: expected" in said
        assert "7.70" not in said
    assert b"0007" not in machine.twin.state(TOPIC)
    _, said = machine.command("quarantine export", "--rows", str(machine.folder / "bad.jsonl"))
    assert "is there already" in said


def test_a_row_of_which_a_later_file_had_the_record_is_overtaken(machine: Machine) -> None:
    lines = machine.exported()[:1]
    lines[0]["row"]["amount"] = "7.70"
    config = machine.folder / "c.yaml"
    config.write_text(config.read_text().replace("quarantine:", "replaces: nothing\n    quarantine:"))
    machine.put([row(7, amount="8.00")], name="later.csv")
    code, said = machine.command("run", "--once")
    assert code == 0, said
    code, said = machine.command("replay", "--rows", str(machine.mend(lines)))
    assert code == 0, said
    assert "0 published, 0 unchanged, 1 overtaken" in said
    assert str(machine.twin.state(TOPIC)[b"0007"]["amount"]) == "8.00"
    assert len(machine.open_entries()) == 3


def test_it_waits_for_the_connector_to_be_stopped(machine: Machine) -> None:
    mended = machine.mend(machine.exported())
    running = Ledger(machine.folder / "state" / "drop" / f"{TOPIC}.sqlite3", clock=lambda: datetime.now(UTC))
    try:
        _, said = machine.command("replay", "--rows", str(mended))
        assert "another connector already works on" in said
    finally:
        running.close()


# -- a log of changes -------------------------------------------------------------------------------------------------


class Clock:
    """A clock that steps, since what was last is told by whole seconds."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=2)
        return self.now


@pytest.fixture
def bridge(tmp_path: Path) -> Bridge:
    made = Bridge(tmp_path, quarantine_share=1.0)
    made.clock = Clock()
    made.here.refuses = lambda record: "not yet" if record["name"] == "bad" else ""
    made.other.commit(*put(("1", "a"), ("2", "b")))
    made.publish()
    return made


def replay(bridge: Bridge, name: str) -> MendedReport:
    ledger = Ledger(bridge.folder / "ledger.sqlite3", clock=bridge.clock)
    try:
        rows = []
        for entry in read_entries(ledger.sql):
            columns = json.loads(entry.original)
            rows.append(MendedRow(entry.id, {**columns, "name": name}))
        return replay_rows(
            Publication(topic=Topic.parse(HERE), columns=bridge.columns),
            rows,
            bridge.here.client(PROVIDER, "bridge", bridge.key),
            ledger,
            sign=bridge.key.sign,
            limits=bridge.limits,
            clock=bridge.clock,
        )
    finally:
        ledger.close()


def test_a_mended_change_is_published_and_the_log_goes_on_where_it_was(bridge: Bridge) -> None:
    bridge.other.commit(*put(("3", "bad"), ("1", "c")))
    bridge.publish()
    assert bridge.state()["1"]["name"] == "c"
    done = replay(bridge, "good")
    assert (done.published, done.overtaken) == (1, 0)
    assert bridge.state()["3"]["name"] == "good"
    assert ChangePosition.parse(bridge.positions()[-1]) is None, "a mended row has no place in the log"
    bridge.other.commit(*put(("1", "d"), ("1", "c"), ("1", "d")))
    before = len(bridge.here.records(HERE))
    (report,) = bridge.publish()
    assert (report.read, report.published) == (3, 3)
    assert len(bridge.here.records(HERE)) == before + 3
    assert bridge.publish()[0].read == 0


def test_what_was_published_and_not_confirmed_is_not_stated_again_after_a_mended_row(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge.other.commit(*put(("3", "bad")))
    bridge.other.commit(*put(("1", "c")))
    bridge.other.commit(*put(("1", "d")))
    with monkeypatch.context() as dying:
        dying.setattr(PoolChangeSource, "confirm", lambda *_: None)  # the process died just before
        bridge.publish()
    assert replay(bridge, "good").published == 1
    before = len(bridge.here.records(HERE))
    bridge.publish()
    assert bridge.state()["1"]["name"] == "d"
    assert len(bridge.here.records(HERE)) == before


@pytest.mark.parametrize("later", [put(("3", "later")), [("delete", {"id": "3"})]])
def test_what_came_later_closes_the_entry(bridge: Bridge, later: Any) -> None:
    bridge.other.commit(*put(("3", "x")))
    bridge.publish()
    bridge.other.commit(*put(("3", "bad")))
    bridge.publish()
    bridge.other.commit(*later)
    bridge.publish()
    assert replay(bridge, "of before").published == 0
    assert bridge.state().get("3", {}).get("name") != "of before"


def test_what_came_before_the_bad_row_is(bridge: Bridge) -> None:
    bridge.other.commit(*put(("3", "x")))
    bridge.publish()
    bridge.other.commit(*put(("3", "bad")))
    bridge.publish()
    assert replay(bridge, "mended").published == 1
    assert bridge.state()["3"]["name"] == "mended"


def test_the_pool_is_away(bridge: Bridge) -> None:
    bridge.other.commit(*put(("3", "bad")))
    bridge.publish()
    bridge.limits = type(bridge.limits)(give_up_after=0.0, backoff=0.001)

    def away(_: str) -> None:
        raise UnavailableError(Reason.GATEWAY_UNAVAILABLE, "away")

    bridge.here.fail = away
    with pytest.raises(UnavailableError):
        replay(bridge, "good")
    bridge.here.fail = lambda _: None
    assert replay(bridge, "good").published == 1
