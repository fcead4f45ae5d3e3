"""Attacks by the owner of the database on lists: a damaged row hides no other, is named, and can be ended."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from exchange.server.row_tags import tagged_tables
from schemas import library
from schemas.errors import PoolError, Reason
from schemas.merkle import leaf_hash
from tests.kit.cases.catalogue import metadata
from tests.kit.patience import wait_for
from tests.kit.world.world import World

pytestmark = [pytest.mark.e2e, pytest.mark.postgres]

TOPIC, OTHER = "residents.v1", "movers.v1"
# Table → its list, the member that names an item, the column of it, and what an owner of the database changes.
LISTS = {
    "deadline_rule_change": ("/rule-changes", "id", "id", "content = replace(content, 'false', 'true')"),
    "access_grant": ("/grants", "id", "id", "text = replace(text, 'STANDING-1', 'STANDING-2')"),
    "access_predicate": ("/hub/predicates", "id", "id", "expression = replace(expression, '80', '79')"),
    "access_purpose": ("/purposes", "id", "id", "zh = '随意'"),
    "duty_item": ("/duties", "id", "department || ':' || code", "purposes = '[]'"),
    "erasure_request": ("/erasures", "id", "id", "reason = 'x'"),
    "identity_account": ("/users", "name", "name", "created_by = 'x'"),
    "identity_certificate": ("/certificates", "serial", "serial", "not_after = not_after + interval '1 year'"),
    "identity_proposal": ("/proposals", "id", "id", "person = 'x'"),
    "registry_catalogue": ("/catalogue", "topic", "name || '.v' || major", "body = replace(body, 'G4', 'G1')"),
    "registry_catalogue_record": (
        "/catalogue/records",
        "topic",
        "name || '.v' || major",
        "body = replace(body, 'G4', 'G1')",
    ),
    "registry_data_element": ("/elements", "code", "code", "body = replace(body, 'G4', 'G1')"),
    "registry_department": ("/departments", "id", "id", "body = replace(body, '330100', '330101')"),
}
NO_LIST = {
    "correction_ticket": "tests/e2e/test_corrections.py damages one of two",
    "correction_notice": "tests/contract/test_correction_store.py damages one",
    "share_request": "is read with its grant; tests/contract/test_request_store.py",
    "identity_invitation": "a token is looked up by its digest",
    "identity_signing_key": "is read for one connector",
    "registry_approval": "/governance/approvals; tests/contract/test_registry_approvals.py",
    "registry_schema": "the registry's lists have Confluent's form, in which nothing could be named: they refuse",
    "registry_subject": "as registry_schema",
    "registry_version": "as registry_schema",
    "registry_department_version": "history of one department",
    "registry_catalogue_version": "history of one entry",
    "registry_catalogue_record_version": "versions of one record",
    "registry_element_source": "sources of one element; a forged one is refused",
    "hub_mark": "marks of one subject; a forged one is refused, tests/contract/test_hub_store.py",
    "hub_resource": "numbers, read whole; a forged one is refused, tests/contract/test_hub_store.py",
    "hub_rules": "versions of one library; a forged one is refused, tests/contract/test_hub_rules_store.py",
    "violation_case": "/violations; tests/e2e/test_violations.py and tests/contract/test_violation_store.py",
}


class Pool:
    """A running pool, and the connection of the one who administers its database."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.provider, self.consumer = world.department("公安局"), world.department("人社局")
        for number, topic in enumerate((TOPIC, OTHER), 1):
            self.provider.offer(topic, library.text("population"), code=f"101001/00000{number}", level="G4")
        for code in ("DE00001", "DE00002"):
            element = {"code": code, "zh": "公民身份号码", "en": "Identity number", "type": "text", "level": "G4"}
            world.root.post("/elements", element)
        for topic in ("firms.v1", "licences.v1"):
            editor, head = map(self.provider.account, ("catalogue_editor", "sharing_office_head"))
            editor.post(f"/catalogue/{topic}/metadata", metadata().to_document())
            editor.post(f"/catalogue/{topic}/submission")
            head.post(f"/catalogue/{topic}/approval")
        self.consumer.enrol("one")
        self.consumer.enrol("two")
        self.auditor = world.account("watcher", "auditor")
        self.head = self.provider.account("sharing_office_head")
        for key in ("a", "b"):
            self.head.post("/erasures", {"topic": TOPIC, "key": [key], "reason": "依法删除"})
        for year in (2040, 2041):
            days = "".join(f"{year}-{day},false,n\n" for day in ("01-01", "05-01", "05-02", "10-01", "10-02", "10-03"))
            world.root.post(f"/calendar/{year}", {"content": f"date,is_workday,notice\n{days}"})
        self.grants = [self.consumer.request(TOPIC, ["id_number"]) for _ in range(3)]
        self.provider.approve(self.grants[0])
        for code in ("PS-1", "PS-2"):
            duty = {"name": "户籍管理", "legal_basis": "户口登记条例 第三条", "purposes": ["eligibility"]}
            world.root.post("/duties", {"department": self.provider.id, "code": code, **duty})
        for name in ("alive-80", "aged-80"):
            expression = {"op": "range", "field": "age", "low": 80, "high": None}
            said = {"name": name, "library": "population", "expression": expression, "answers": "年满八十周岁"}
            world.root.post("/hub/predicates", said)
        self.engine = sa.create_engine((world.data / "database-url").read_text().strip())

    def do(self, statement: str, **values: object) -> None:
        with self.engine.begin() as connection:
            assert connection.execute(sa.text(statement), values).rowcount == 1, "the attack did nothing"

    @contextmanager
    def damaged(self, table: str, change: str, which: str) -> Iterator[None]:
        """Change a row for the length of a block."""
        with self.engine.connect() as connection:
            row = dict(connection.execute(sa.text(f"SELECT * FROM {table} WHERE {which}")).mappings().one())
        self.do(f"UPDATE {table} SET {change} WHERE {which}")
        try:
            yield
        finally:
            columns = ", ".join(f"{name} = :{name}" for name in row)
            self.do(f"UPDATE {table} SET {columns} WHERE {which}", **row)

    def pool(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command as the auditor."""
        token = self.world.folder / "auditor.token"
        token.write_text(self.world.people.tokens["watcher"])
        noun, *rest = words
        return self.world.programs.run(
            "pool", noun, "--data", str(self.world.data), "--token-file", str(token), *rest, check=False
        )


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with World.start() as world:
        pool = Pool(world)
        yield pool
        pool.engine.dispose()


def refused(act: Any) -> Reason:
    with pytest.raises(PoolError) as caught:
        act()
    return caught.value.reason


def test_every_table_of_rows_with_a_tag_has_a_list_that_is_attacked_here_or_none() -> None:
    assert {table.name for table in tagged_tables()} | {"access_grant"} == LISTS.keys() | NO_LIST.keys()


@pytest.mark.parametrize("table", LISTS)
def test_a_damaged_row_hides_no_other_and_is_named_without_what_it_says(pool: Pool, table: str) -> None:
    path, member, column, change = LISTS[table]
    whole = pool.auditor.list(path)
    assert len(whole) >= 2
    name = whole[-2][member]
    with pool.damaged(table, change, f"{column} = '{name}'"):
        listed = pool.auditor.list(path)
        paged = page_by_page(pool, path)
    assert [one[member] for one in listed] == [one[member] for one in whole], "the list has all, in its order"
    assert listed == paged, "its pages end nowhere before"
    assert listed[-2] == {member: name, "status": "damaged"}
    assert [one for one in listed if one.get("status") != "damaged"] == [*whole[:-2], whole[-1]]
    assert pool.auditor.list(path) == whole


def page_by_page(pool: Pool, path: str) -> list[dict[str, Any]]:
    client, target, found = pool.auditor, f"{path}?limit=1", []
    while target:
        page, link = client._call("GET", target)
        found += page
        target = link.split(">")[0].removeprefix("</v1") if link and page else ""
    return found


@pytest.mark.parametrize(
    ("table", "listing", "show"),
    [
        ("access_grant", ("grant", "list"), ("grant", "show")),
        ("identity_account", ("user", "list"), ("user", "show")),
    ],
)
def test_the_commands_name_it_too_and_show_refuses_it(
    pool: Pool, table: str, listing: tuple[str, ...], show: tuple[str, ...]
) -> None:
    path, member, column, change = LISTS[table]
    name = pool.auditor.list(path)[-2][member]
    with pool.damaged(table, change, f"{column} = '{name}'"):
        rows = pool.pool(*listing)
        shown = pool.pool(*show, name)
    assert rows.returncode == 0, rows.stderr
    (line,) = (line for line in rows.stdout.splitlines() if name in line.split("\t"))
    assert "damaged" in line.split("\t"), line
    assert shown.returncode == 1
    assert not shown.stdout
    assert shown.stderr.startswith(("row_forged", "grant_forged")), shown.stderr


def test_an_invented_row_is_named_if_its_key_could_be_one_of_the_pool_s(pool: Pool) -> None:
    invent = (
        "INSERT INTO identity_account (name, role, department, digest, created_by, created_at, person, expires_at)"
        " VALUES (:name, 'auditor', '', sha256(:name::bytea), 'x', now(), 'P-1', now() + interval '7 days')"
    ).replace(":name::bytea", "convert_to(:name, 'UTF8')")
    names = ["zz-invented", "zz\x1b[2Jlook here", "zz" + "z" * 400]
    try:
        for name in names:
            pool.do(invent, name=name)
        listed = page_by_page(pool, "/users")
        assert {"name": "zz-invented", "status": "damaged"} in listed
        assert not {one["name"] for one in listed} & set(names[1:])
    finally:
        for name in names:
            pool.do("DELETE FROM identity_account WHERE name = :name", name=name)


def entries(pool: Pool, grant: str, action: str) -> list[dict[str, Any]]:
    return [one["entry"] for one in pool.auditor.get("/audit/entries", {"grant": grant, "action": action})]


def test_a_damaged_grant_is_shown_to_nobody_and_can_be_suspended_and_terminated(pool: Pool) -> None:
    grant = pool.grants[0]
    change = "text = replace(text, '\"keep_3_4\"', '\"none\"')"
    pool.do(f"UPDATE access_grant SET {change} WHERE id = :id", id=grant)
    listed = pool.head.list("/grants")
    assert {"id": grant, "status": "damaged"} in listed
    assert [one["id"] for one in listed] == pool.grants
    assert refused(lambda: pool.head.get(f"/grants/{grant}")) is Reason.GRANT_FORGED
    assert refused(lambda: pool.head.post(f"/grants/{grant}/rectified", {"reason": "x"})) is Reason.GRANT_FORGED
    stranger = pool.consumer.account("sharing_office_head")
    assert refused(lambda: stranger.post(f"/grants/{grant}/suspend", {"reason": "x"})) is Reason.NOT_PROVIDER
    suspended = pool.head.post(f"/grants/{grant}/suspend", {"reason": "库中被改"})
    assert suspended["state"] == "suspended"
    assert suspended["masks"]["id_number"] == "keep_3_4", "from the version that the pool wrote"
    (entry,) = entries(pool, grant, "exchange:grant:suspend")
    assert entry["data"] | {"damaged": True, "reason": "库中被改", "state": "suspended"} == entry["data"]
    pool.do(f"UPDATE access_grant SET {change} WHERE id = :id", id=grant)
    assert pool.world.root.post(f"/grants/{grant}/terminate", {"reason": "库中被改"})["state"] == "terminated"
    assert pool.head.get(f"/grants/{grant}")["state"] == "terminated"
    assert [one["state"] for one in pool.head.get(f"/grants/{grant}")["review"]["versions"]] == [
        "submitted", "countersigned", "approved", "active", "suspended", "terminated",
    ]  # fmt: skip


def test_a_damaged_request_is_listed_and_can_be_rejected(pool: Pool) -> None:
    grant = pool.grants[1]
    pool.do("UPDATE access_grant SET seal = hash WHERE id = :id", id=grant)
    assert {"id": grant, "status": "damaged"} in pool.head.list("/grants", {"state": "submitted"})
    assert refused(lambda: pool.head.post(f"/grants/{grant}/approval")) is Reason.GRANT_FORGED
    refusal = {"reason": "无法核实", "clause": "政务数据共享条例 第二十一条", "ground": "conditions_not_met"}
    assert pool.head.post(f"/grants/{grant}/reject", refusal)["state"] == "rejected"


def test_a_grant_that_the_pool_never_wrote_is_named_and_gives_nothing(pool: Pool) -> None:
    """There is no version of it that anybody could end: an auditor has it deleted."""
    invented = "01890000-0000-7000-8000-000000000001"
    pool.do(
        "INSERT INTO access_grant SELECT :id, version, replace(text, id, :id), hash, seal, consumer, provider, topic,"
        " 'active', expires FROM access_grant WHERE id = :like",
        id=invented,
        like=pool.grants[2],
    )
    try:
        assert pool.head.list("/grants")[0] == {"id": invented, "status": "damaged"}
        suspend = {"reason": "x"}
        assert refused(lambda: pool.world.root.post(f"/grants/{invented}/suspend", suspend)) is Reason.GRANT_FORGED
    finally:
        pool.do("DELETE FROM access_grant WHERE id = :id", id=invented)


def test_after_all_of_this_the_log_and_the_rows_are_in_order(pool: Pool) -> None:
    data = pool.world.data
    done = pool.world.programs.run(
        "pool", "audit", "verify", "--files", str(data / "log"), "--key", str(data / "log.pub"),
        "--database", str(data / "database-url"), "--secrets", str(data / "secrets"), check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_an_entry_whose_leaf_was_changed_is_named_and_hides_no_other(pool: Pool) -> None:
    def approvals() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = pool.auditor.list("/audit/entries", {"action": "exchange:grant:approve"})
        return found

    wait_for(lambda: {one["proof"] for one in approvals()} == {"signed"}, "approvals are signed")
    whole = approvals()
    entry = whole[0]["entry"]["id"]
    with pool.engine.connect() as connection:
        leaf = connection.execute(sa.text("SELECT leaf FROM audit_entry WHERE id = :id"), {"id": entry}).scalar_one()
    change = "UPDATE audit_entry SET leaf = :leaf WHERE id = :id"
    pool.do(change, leaf=b"not json", id=entry)
    try:
        listed = approvals()
        exported = pool.auditor.get("/audit/entries.csv")
        assert refused(lambda: pool.auditor.get(f"/audit/entries/{entry}/proof")) is Reason.LOG_CORRUPT
    finally:
        pool.do(change, leaf=bytes(leaf), id=entry)
    assert [one["cursor"] for one in listed] == [one["cursor"] for one in whole]
    assert listed[0]["entry"]["decision"] == "damaged"
    assert entry not in str(listed[0])
    assert listed[1:] == whole[1:]
    assert exported.count(",damaged,damaged,") == 1


def _changed(leaf: bytes, name: str, value: Any) -> bytes:
    return json.dumps({**json.loads(leaf), name: value}, ensure_ascii=False, separators=(",", ":")).encode()


def _row(pool: Pool, entry: str) -> tuple[bytes, bytes]:
    with pool.engine.connect() as connection:
        found = connection.execute(sa.text("SELECT leaf, leaf_hash FROM audit_entry WHERE id = :id"), {"id": entry})
        leaf, digest = found.one()
    return bytes(leaf), bytes(digest)


def test_a_leaf_that_was_changed_with_its_hash_is_not_shown_as_an_entry(pool: Pool) -> None:
    """The owner of the database blames another person for an approval, or shows it twice in place of another entry."""

    def approvals() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = pool.auditor.list("/audit/entries", {"action": "exchange:grant:approve"})
        return found

    wait_for(lambda: {one["proof"] for one in approvals()} == {"signed"}, "approvals are signed")
    whole = approvals()
    entry = whole[0]["entry"]["id"]
    other = pool.auditor.list("/audit/entries", {"action": "registry:department:register"})[0]["entry"]["id"]
    own = _row(pool, entry)
    forged = _changed(own[0], "actor", {**whole[0]["entry"]["actor"], "id": "scapegoat"})
    change = "UPDATE audit_entry SET leaf = :leaf, leaf_hash = :digest WHERE id = :id"
    try:
        for leaf, digest in ((forged, leaf_hash(forged)), _row(pool, other)):
            pool.do(change, leaf=leaf, digest=digest, id=entry)
            listed, exported = approvals(), pool.auditor.get("/audit/entries.jsonl")
            assert listed[0]["entry"]["action"] == "damaged"
            assert "scapegoat" not in str(listed) + exported
            assert listed[1:] == whole[1:]
            assert exported.count('"action": "damaged"') == 1
            assert "leaf" not in pool.auditor.get(f"/audit/entries/{entry}")
            assert refused(lambda: pool.auditor.get(f"/audit/entries/{entry}/proof")) is Reason.LOG_CORRUPT
    finally:
        pool.do(change, leaf=own[0], digest=own[1], id=entry)
    assert approvals() == whole
