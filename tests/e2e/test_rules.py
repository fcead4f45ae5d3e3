"""Calendar, rule profiles and deadlines by command: one person proposes, another confirms, deadlines follow."""

import json
from collections.abc import Callable, Iterator
from importlib.resources import files
from subprocess import CompletedProcess

import pytest

from schemas import library
from tests.kit.world.world import World

pytestmark = [pytest.mark.e2e, pytest.mark.postgres]

NOTICE = """date,is_workday,notice
2027-01-01,false,国办发明电〔2026〕0号
2027-01-02,true,国办发明电〔2026〕0号
2027-10-01,false,国办发明电〔2026〕0号
"""
CITY = (files("exchange.deadlines") / "data" / "city-example.yaml").read_text(encoding="utf-8")
Run = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World.start() as world:
        world.account("watcher", "auditor")
        yield world


@pytest.fixture
def run(world: World) -> Run:
    """Run a command as an account: a word and its group, then the account, then the rest."""

    def pool(group: str, account: str, *words: str) -> CompletedProcess[str]:
        token = world.folder / f"{account}.token"
        token.write_text(world.people.tokens[account])
        options = ("--data", str(world.data), "--token-file", str(token))
        return world.programs.run("pool", group, *options, *words, check=False)

    return pool


def said(done: CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(done: CompletedProcess[str]) -> str:
    assert done.returncode == 1, done.stdout
    return done.stderr


def compute(run: Run, *words: str) -> str:
    return said(run("deadline", "watcher", "compute", "reply.conditional", "--start", "2026-12-24T09:00", *words))


def test_two_persons_load_a_year_and_deadlines_follow(world: World, run: Run) -> None:
    file = world.folder / "2027.csv"
    file.write_text(NOTICE)
    before = compute(run)
    assert before.startswith("2027-01-09T00:00:00+08:00 ("), before
    assert "provisional: the working days of that year are not known yet" in before
    assert "decree 809 Art. 21 (《政务数据共享条例》第二十一条)" in before
    proposed = said(run("calendar", "authority-1", "import", str(file), "--year", "2027")).splitlines()
    assert proposed[0] == "proposed: calendar of 2027, 2 holidays and 1 working days"
    change = proposed[1].split()[-1]
    assert said(run("calendar", "authority-2", "change", change)) == NOTICE
    assert refused(run("calendar", "authority-1", "confirm", change)).startswith("same_person: ")
    assert refused(run("calendar", "watcher", "confirm", change)).startswith("role_forbidden: ")
    assert refused(run("profile", "authority-2", "confirm", change)).startswith("not_found: ")
    assert "provisional" in compute(run)
    assert said(run("calendar", "authority-2", "confirm", change)) == "in force: calendar of 2027\n"
    assert compute(run).startswith("2027-01-08T00:00:00+08:00 (")
    assert "provisional" not in compute(run)
    assert said(run("calendar", "watcher", "show", "2027", "--csv")) == NOTICE
    assert said(run("calendar", "watcher", "show", "2027")).splitlines()[1].startswith("2027-01-02\tSat\tworking day\t")
    years = json.loads(said(run("calendar", "watcher", "list", "--json")))
    assert [one["year"] for one in years] == [*range(2004, 2028)]
    (row,) = said(run("calendar", "watcher", "changes", "--state", "in_force")).splitlines()
    assert row.split("\t")[:6] == [change, "calendar", "2027", "in_force", "authority-1", "authority-2"]
    entries = world.root.get("/audit/entries", {"action": "pool:rules:confirm"})
    assert [one["entry"]["resource"] for one in entries if one["entry"]["decision"] == "allow"] == ["calendar/2027"]


def test_a_file_with_faults_reaches_no_pool(world: World, run: Run) -> None:
    file = world.folder / "faults.csv"
    file.write_text("date,is_workday,notice\n2028-02-30,false,n\n2028-01-01,perhaps,n\n")
    lines = refused(run("calendar", "authority-1", "import", str(file), "--year", "2028")).splitlines()
    assert lines[0].startswith(f"config_invalid: {file}:2:1: got no date")
    assert f"{file}:3:12: got no truth value" in "".join(lines)
    half = world.folder / "half.csv"
    half.write_text("date,is_workday,notice\n2028-05-01,false,n\n")
    assert "in which 2028-05-02 is a working day" in refused(
        run("calendar", "authority-1", "import", str(half), "--year", "2028")
    )
    assert refused(run("calendar", "watcher", "show", "2028")).startswith("not_found: got the year 2028")


def test_a_profile_of_the_city_is_checked_proposed_ordered_and_followed(world: World, run: Run) -> None:
    file = world.folder / "city.yaml"
    file.write_text(CITY.replace("profile: city-example", "profile: our-city"))
    assert said(run("profile", "watcher", "check", str(file))).startswith(f"{file}: our-city, version 1, 3 rules; no")
    change = said(run("profile", "authority-2", "propose", str(file))).split()[-1]
    assert said(run("profile", "authority-1", "change", change)).startswith("# An example of a local profile")
    assert said(run("profile", "authority-1", "confirm", change)) == "in force: profile our-city\n"
    assert "decree 809" in compute(run)
    assert "2026-12-31" in compute(run, "--profile", "our-city")
    order = said(run("profile", "authority-1", "order", "our-city", "809", "general")).split()[-1]
    assert said(run("profile", "authority-2", "confirm", order)) == "in force: the order of the profiles\n"
    assert "某市办法（示例）第十九条" in compute(run)
    listed = [line.split("\t")[:4] for line in said(run("profile", "watcher", "list")).splitlines()]
    assert listed[:3] == [["our-city", "1", "1", "False"], ["809", "1", "2", "True"], ["general", "1", "3", "True"]]
    rules = json.loads(said(run("deadline", "watcher", "rules", "--json")))
    assert {one["rule"]: one["profile"] for one in rules}["reply.conditional"] == "our-city"
    assert said(run("profile", "watcher", "show", "809")).startswith("809, version 1: State Council decree 809")
    withdrawn = said(run("profile", "authority-1", "order", "809")).split()[-1]
    assert said(run("profile", "authority-1", "reject", withdrawn, "--reason", "too short")).startswith("rejected: ")
    assert said(run("profile", "watcher", "changes", "--state", "rejected")).split("\t")[0] == withdrawn


def test_requests_are_due_by_the_rules_in_force(world: World, run: Run) -> None:
    provider, consumer = world.department("公安局"), world.department("人社局")
    provider.offer("residents.v1", library.text("population"))
    grant = consumer.request("residents.v1", ["sex_code"])
    shown = world.root.get(f"/grants/{grant}")
    computed = json.loads(
        said(run("deadline", "watcher", "compute", "reply.conditional", "--start", shown["submitted_at"], "--json"))
    )
    assert shown["due_at"] == computed["due_at"]
    assert shown["due_confirmed"] is not computed["provisional"]


def test_lists_have_pages_and_bad_questions_are_answered(world: World, run: Run) -> None:
    everything = world.root.get("/rules")
    assert world.root.list("/rules", {"limit": 3}) == everything
    assert world.root.list("/calendar", {"limit": 5}) == world.root.get("/calendar")
    assert world.root.list("/profiles", {"limit": 2}) == world.root.get("/profiles")
    assert world.root.list("/rule-changes", {"limit": 1}) == world.root.get("/rule-changes")
    assert refused(run("deadline", "watcher", "compute", "nothing")).startswith("request_invalid: ")
    assert refused(run("deadline", "watcher", "compute", "delivery", "--start", "soon")).startswith("request_invalid: ")
    assert "knows no extension" in refused(run("deadline", "watcher", "compute", "delivery", "--extension", "3"))
    assert refused(run("profile", "watcher", "show", "nothing")).startswith("not_found: ")
    assert refused(run("calendar", "authority-1", "import", "/nowhere.csv", "--year", "2028")).startswith("config_inv")
