"""Supervision events as a resource: a connector reads the list as a JSON API, an e-supervision system has a grant."""

import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from schemas import library
from tests.docs.pages import blocks
from tests.kit.patience import wait_for
from tests.kit.world.world import World

pytestmark = [pytest.mark.e2e, pytest.mark.postgres]
TOPIC = "supervision-event.v1"
FIELDS = ["sequence", "kind", "department", "rule", "due", "entry"]


def configured(world: World, folder: Path, identity: Path) -> Path:
    """The configuration of the how-to, with the addresses and credentials of this pool."""
    page = next(one for one in blocks("yaml") if one.page.endswith("supervise-sharing.md"))
    config: dict[str, Any] = YAML(typ="safe").load(page.text)
    token = folder / "auditor.token"
    token.write_text(world.account("auditor-stream", "auditor")._headers["authorization"].removeprefix("Bearer "))
    config["exchange"] = {"identity": str(identity), "gateway": world.addresses["gateway"]}
    config["source"] |= {
        "url": f"https://{world.addresses['http']}/v1/",
        "ca": str(world.data / "ca" / "authority.crt"),
        "token": f"${{file:{token}}}",
    }
    file = folder / "supervision.yaml"
    with file.open("w") as stream:
        YAML(typ="safe").dump(config, stream)
    return file


def test_an_e_supervision_system_draws_the_events_under_a_grant_of_its_own(
    postgres_world: World, tmp_path: Path
) -> None:
    world = postgres_world
    bureau, system = world.department("数据局监察"), world.department("电子监察")
    bureau.offer(TOPIC, library.text("supervision_event"), code=world.new_code(), level="G1")
    folder = world.folder / "identities"
    config = configured(world, tmp_path, folder / bureau.id / bureau.enrol("supervision").connector)
    sink = folder / system.id / system.enrol("sink").connector
    grant = system.request(TOPIC, FIELDS)  # the clock of its own reply is an event

    def events() -> dict[str, dict[str, Any]]:
        return {one["sequence"]: one for one in world.root.list("/supervision/events")}

    def drawn(name: str) -> dict[str, dict[str, Any]]:
        """Publish what there is, and draw it as the system."""
        world.programs.run("pool-connect", "run", str(config), "--once")
        file = tmp_path / name
        world.programs.run(
            "pool-connect", "export", str(file), "--identity", str(sink), "--grant", grant, "--purpose", "eligibility",
            "--case", "STANDING-1", "--gateway", world.addresses["gateway"],
        )  # fmt: skip
        rows = map(json.loads, file.read_text().splitlines())
        return {row["sequence"]: {name: row[name] for name in FIELDS} for row in rows}

    wait_for(lambda: any(one["grant"] == grant for one in events().values()), "the request is an event")
    before = events()
    bureau.approve(grant)
    first = drawn("first.jsonl")
    assert before.keys() <= first.keys()
    listed = events()
    for sequence, row in first.items():
        assert row == {name: listed[sequence][name] for name in FIELDS}
    wait_for(lambda: len(events()) > len(before), "the approval is an event")
    second = drawn("second.jsonl")
    assert first.keys() < second.keys() or len(first) == len(listed)
    assert second.keys() <= events().keys()
