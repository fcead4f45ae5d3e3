"""What an approver and an operator see: `show` of every noun in words, and `--json` with the fields of the answer."""

import json
from pathlib import Path
from typing import Any

import pytest

from exchange.cli.grant_text import describe_filter
from schemas import library
from schemas.errors import PoolError, Reason
from tests.kit.world.world import Office, World, disclosing

pytestmark = [pytest.mark.e2e, pytest.mark.postgres]


class Terminal:
    """`pool` as the holder of one account calls it."""

    def __init__(self, world: World, account: str, folder: Path) -> None:
        self._world = world
        self._token = folder / f"{account}.token"
        self._token.write_text(world.people.tokens[account])

    def run(self, *words: str, check: bool = True) -> str:
        noun, *rest = words
        options = ("--data", str(self._world.data), "--token-file", str(self._token))
        done = self._world.programs.run("pool", noun, *options, *rest, check=check)
        return done.stdout if check else done.stderr

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json"))


def account_of(office: Office, role: str) -> str:
    office.account(role)
    names = office.world.people.tokens
    return next(name for name in names if name.endswith(office.id[-6:]) and name.startswith(role.replace("_", "-")))


@pytest.fixture(scope="module")
def asked(postgres_world: World) -> tuple[Office, Office, str]:
    provider, consumer = postgres_world.department("民政局九"), postgres_world.department("医保局九")
    provider.offer("residents-shown.v1", library.text("population"), code="101001/000091")
    grant = consumer.request(
        "residents-shown.v1",
        ["id_number", "household_division_code"],
        row_filter={"op": "in", "field": "full_name", "values": ["王一", "李二"]},
        quota_per_day=5_000,
        **disclosing("full_name"),
    )
    return provider, consumer, grant


def test_an_approver_is_told_in_words_everything_that_a_request_says(
    postgres_world: World, asked: tuple[Office, Office, str], tmp_path: Path
) -> None:
    provider, consumer, grant = asked
    terminal = Terminal(postgres_world, account_of(provider, "sharing_office_head"), tmp_path)
    document = provider.account("sharing_office_head").get(f"/grants/{grant}")
    said = terminal.run("grant", "show", grant)
    for words in (
        f"医保局九 ({consumer.id})", f"民政局九 ({provider.id})", "residents-shown.v1", "masked, keep_3_4",
        "household_division_code", 'is one of "王一", "李二"', "a test chooses rows", "eligibility",
        "社会保险法 第七十四条", "STANDING-1", "5,000 records a day", "everything that the resource keeps",
        "submitted: waits", document["expires"].replace(".000000", ""), document["requested_by"], "To know before",
    ):  # fmt: skip
        assert words in said, f"{words}\n{said}"
    assert [one["state"] for one in document["review"]["versions"]] == ["submitted"]
    assert max(map(len, said.split("To know")[0].splitlines())) <= 120
    assert terminal.json("grant", "show", grant) == document
    request = terminal.json("request", "show", grant)
    assert request == provider.account("sharing_office_head").get(f"/requests/{grant}")
    assert (request["state"], [one["event"] for one in request["history"]]) == ("submitted", ["submit"])
    row = next(line for line in terminal.run("grant", "list").splitlines() if line.startswith(grant))
    for words in (consumer.id, "id_number=keep_3_4", "is one of", "STANDING-1", "社会保险法", "all", "5000"):
        assert words in row, f"{words}\n{row}"


def test_counts_permissions_and_one_s_own_account(
    postgres_world: World, asked: tuple[Office, Office, str], tmp_path: Path
) -> None:
    _, _, grant = asked
    terminal = Terminal(postgres_world, "authority-1", tmp_path)
    counts = terminal.json("grant", "counts")
    assert sum(counts["counts"].values()) == len(terminal.json("grant", "list"))
    assert counts["more"] == []
    assert all(state in terminal.run("grant", "counts") for state in counts["counts"])
    may = {one["event"]: one for one in terminal.json("grant", "may", grant)["events"]}
    assert may["approve"]["allowed"] is False
    assert may["approve"]["reason"] == "role_missing"
    assert may["approve"]["message"] in terminal.run("grant", "may", grant)
    own = terminal.json("user", "me")
    assert (own["name"], own["role"]) == ("authority-1", "data_authority")
    assert own["rights"]["exchange:grant:read"] == "any"
    assert "exchange:records:fetch" not in own["rights"]
    assert "exchange:grant:read" in terminal.run("user", "me")


def test_every_noun_has_its_list_as_json_and_one_of_it_shown(
    postgres_world: World, asked: tuple[Office, Office, str], tmp_path: Path
) -> None:
    provider, _, _ = asked
    provider.enrol("shown-drop")
    terminal = Terminal(postgres_world, "authority-1", tmp_path)
    nouns: list[tuple[list[str], str, tuple[str, ...]]] = [
        (["department"], "/departments", ("id",)),
        (["catalogue"], "/catalogue", ("topic",)),
        (["user"], "/users", ("name",)),
        (["certificate"], "/certificates", ("serial",)),
    ]
    for noun, path, key in nouns:
        listed = terminal.json(*noun, "list")
        answer = postgres_world.root.list(path)
        fields = answer[0].keys()
        told = [one for one in answer if "shown" in json.dumps(one, ensure_ascii=False) or len(answer) == 1] or answer
        one = told[-1]
        assert one in [{name: row[name] for name in fields} for row in listed], noun
        shown = terminal.json(*noun, "show", *(one[name] for name in key))
        assert {name: shown[name] for name in fields} == one
        text = terminal.run(*noun, "show", *(one[name] for name in key))
        assert all(str(one[name]) in text for name in key)
    shown = terminal.run("connector", "show", provider.id, "shown-drop")
    assert "in use" in shown
    assert "+00:00" in shown
    assert {"purpose", "eligibility"} & {one["id"] for one in terminal.json("purposes")}
    missing = terminal.run("user", "show", "nobody.at-all", check=False)
    assert missing.startswith("not_found: there is no account 'nobody.at-all'")


def test_a_filter_is_told_in_words_with_its_brackets() -> None:
    either = {"op": "or", "parts": [{"op": "eq", "field": "a", "value": 1}, {"op": "exists", "field": "b"}]}
    both = {"op": "and", "parts": [either, {"op": "not", "part": {"op": "prefix", "field": "c", "value": "33"}}]}
    assert describe_filter(both, {"a": "甲"}) == '(a 甲 = 1 or b has a value) and not (c begins with "33")'
    ranged = {"op": "range", "field": "born", "low": None, "high": "2000-01-01"}
    assert describe_filter(ranged, {}) == 'born to "2000-01-01"'
    assert describe_filter(None, {}) == "all rows"


def test_grants_are_filtered_ordered_and_read_page_by_page(
    postgres_world: World, asked: tuple[Office, Office, str], tmp_path: Path
) -> None:
    provider, consumer, grant = asked
    head = provider.account("sharing_office_head")
    later = consumer.request("residents-shown.v1", ["id_number"], quota_per_day=1)
    topic = {"topic": "residents-shown.v1"}
    every = [one["id"] for one in head.list("/grants", topic)]
    assert {grant, later} <= set(every)
    assert [one["id"] for one in head.list("/grants", {**topic, "order": "newest", "limit": 1_000})] == every[::-1]
    ends = [one["expires"] for one in head.list("/grants", {**topic, "order": "expires"})]
    assert ends == sorted(ends)
    by_page, after = [], ""
    while page := head.get("/grants", {**topic, "order": "expires", "limit": 1, "after": after}):
        by_page += [one["id"] for one in page]
        after = f"{page[0]['expires'].replace('+00:00', 'Z')}/{page[0]['id']}"
    assert sorted(by_page) == sorted(every)
    for query, found in (
        ({"resource": "residents-shown"}, True),
        ({"resource": "residents"}, False),
        ({"consumer": consumer.id, "state": "submitted"}, True),
        ({"consumer": provider.id}, False),
        ({"provider": provider.id, "expires_within": 31}, True),
        ({"expires_within": 1}, False),
        ({"state": "terminated"}, False),
    ):
        assert (later in {one["id"] for one in head.list("/grants", query)}) is found, query
    terminal = Terminal(postgres_world, account_of(provider, "sharing_office_head"), tmp_path)
    listed = terminal.json(
        "grant", "list", "--topic", "residents-shown.v1", "--state", "submitted", "--order", "newest"
    )
    assert [one["id"] for one in listed] == every[::-1]


def test_versions_and_use_of_a_grant(postgres_world: World, asked: tuple[Office, Office, str], tmp_path: Path) -> None:
    provider, consumer, _ = asked
    head = provider.account("sharing_office_head")
    grant = consumer.request("residents-shown.v1", ["household_division_code"], quota_per_day=10)
    provider.approve(grant)
    versions = head.list(f"/grants/{grant}/versions")
    assert [(one["version"], one["state"]) for one in versions] == [(1, "submitted"), (2, "approved"), (3, "active")]
    assert len({one["entry"] for one in versions}) == 3
    assert len(head.get(f"/grants/{grant}/versions", {"after": 1, "limit": 1})) == 1
    unused = {"grant": grant, "days": [], "releases": 0, "more": False, "last": None}
    assert head.get(f"/grants/{grant}/use") == unused
    terminal = Terminal(postgres_world, account_of(provider, "sharing_office_head"), tmp_path)
    assert "never" in terminal.run("grant", "use", grant)
    assert terminal.json("grant", "use", grant) == unused
    assert terminal.json("grant", "versions", grant) == versions
    stranger = postgres_world.department("司法局九").account("sharing_office_head")
    for path in ("versions", "use"):
        with pytest.raises(PoolError) as caught:
            stranger.get(f"/grants/{grant}/{path}")
        assert caught.value.reason is Reason.OTHER_DEPARTMENT


def test_requests_are_listed_by_their_deadline(
    postgres_world: World, asked: tuple[Office, Office, str], tmp_path: Path
) -> None:
    provider, consumer, _ = asked
    head = provider.account("sharing_office_head")
    grant = consumer.request("residents-shown.v1", ["id_number"])
    document = head.get(f"/grants/{grant}")
    assert document["submitted_at"] < document["due_at"]
    assert document["due"] in {"soon", "normal"}
    topic = {"topic": "residents-shown.v1"}
    by_state = {due: head.list("/grants", {**topic, "due": due}) for due in ("overdue", "soon", "normal")}
    assert by_state["overdue"] == []
    assert grant in {one["id"] for one in by_state[document["due"]]}
    waiting = {one["id"] for one in head.list("/grants", {**topic, "state": "submitted"})}
    assert {one["id"] for some in by_state.values() for one in some} == waiting
    assert head.list("/grants", {**topic, "due": document["due"], "state": "active"}) == []
    account = account_of(provider, "sharing_office_head")
    terminal = Terminal(postgres_world, account, tmp_path)
    assert f"due by {document['due_at']}" in terminal.run("grant", "show", grant)
    row = next(line for line in terminal.run("grant", "list", "--due", document["due"]).splitlines() if grant in line)
    assert row.endswith(document["due_at"])
    provider.approve(grant)
    decided = head.get(f"/grants/{grant}")
    assert (decided["due"], decided["due_at"]) == (None, document["due_at"])
