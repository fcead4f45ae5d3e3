"""Rules of a library by command: an editor proposes, each department concerned agrees, the authority activates."""

import json
from collections.abc import Callable, Iterator
from subprocess import CompletedProcess
from typing import Any

import pytest

from schemas import library
from tests.kit.world.world import Office, World

pytestmark = [pytest.mark.e2e, pytest.mark.postgres]

Run = Callable[..., CompletedProcess[str]]


class Town:
    def __init__(self, world: World) -> None:
        self.world = world
        self.police, self.civil = world.department("公安局"), world.department("民政局")
        self.police.offer("residents.v1", library.text("population"))
        self.civil.offer("marriages.v1", library.text("population"))
        self.editor = self.civil.account("catalogue_editor")

    def run(self, account: str, *words: str) -> CompletedProcess[str]:
        token = self.world.folder / f"{account}.token"
        token.write_text(self.world.people.tokens[account])
        options = ("--data", str(self.world.data), "--token-file", str(token))
        return self.world.programs.run("pool", "hub", "rules", *options, *words, check=False)

    def head(self, office: Office) -> str:
        office.account("sharing_office_head")
        return f"sharing-office-head-{office.id[-6:]}"

    def write(self, document: dict[str, Any]) -> str:
        file = self.world.folder / f"rules-{document.get('version')}.json"
        file.write_text(json.dumps(document, ensure_ascii=False))
        return str(file)


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    with World.start() as world:
        yield Town(world)


def rules(version: int, lead: str = "residents.v1", other: str = "marriages.v1") -> dict[str, Any]:
    return {
        "library": "population",
        "version": version,
        "fields": {
            "full_name": {"rule": "lead", "order": [lead, other], "normalise": "nfkc_space"},
            "sex_code": {"rule": "lead", "order": ["residents.v1"], "strict": True},
        },
    }


def said(done: CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(done: CompletedProcess[str]) -> str:
    assert done.returncode == 1, done.stdout
    return done.stderr


def test_three_persons_set_who_leads_a_field(town: Town) -> None:
    editor = f"catalogue-editor-{town.civil.id[-6:]}"
    file = town.write(rules(1))
    assert "2 fields; no fault" in said(town.run(editor, "check", file))
    assert town.police.id in said(town.run(editor, "propose", file))
    assert refused(town.run("authority-1", "activate", "population", "1")).startswith("transition_not_allowed: ")
    assert refused(town.run(town.head(town.civil), "agree", "population", "1")).startswith("other_department: ")
    assert said(town.run(town.head(town.police), "agree", "population", "1")).startswith("agreed: ")
    assert said(town.run("authority-1", "activate", "population", "1")).startswith("active: ")
    # The other department becomes the lead of a name: both agree.
    second = town.write(rules(2, "marriages.v1", "residents.v1"))
    said(town.run(editor, "propose", second))
    for office in (town.police, town.civil):
        said(town.run(town.head(office), "agree", "population", "2"))
    assert said(town.run("authority-2", "activate", "population", "2")).startswith("active: ")
    listed = json.loads(said(town.run(editor, "list", "population", "--json")))
    assert [one["state"] for one in listed] == ["retired", "active"]
    shown = json.loads(said(town.run(editor, "show", "population", "2")))
    assert shown["rules"] == rules(2, "marriages.v1", "residents.v1")
    assert shown["decided_by"] == "authority-2"
    assert len(shown["agreed_by"]) == 2


def test_a_fault_is_named_by_its_place_and_a_decision_says_why(town: Town) -> None:
    wrong = rules(9)
    wrong["fields"]["sex_code"]["rule"] = "latest"
    assert "fields.sex_code.rule: got 'latest'" in refused(town.run("authority-1", "check", town.write(wrong)))
    with_no_lead = rules(3)
    with_no_lead["fields"]["sex_code"] = {"rule": "lead"}
    assert refused(town.run("authority-1", "propose", town.write(with_no_lead))).startswith("no_lead: ")
    unknown = rules(3, "weather.v1")
    assert "weather.v1" in refused(town.run("authority-1", "propose", town.write(unknown)))
    address = rules(1) | {"library": "address"}
    said(town.run("authority-1", "propose", town.write(address)))
    assert refused(town.run("authority-2", "reject", "address", "1", "--reason", " ")).startswith("request_invalid: ")
    assert said(town.run("authority-2", "reject", "address", "1", "--reason", "too early")).startswith("rejected: ")
    assert refused(town.run("authority-2", "show", "address", "5")).startswith("not_found: ")
