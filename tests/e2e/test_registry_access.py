"""The registry of a running pool: three ways to say who calls, rights beside roles, and approvals by two people."""

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest
import sqlalchemy as sa
from confluent_kafka.schema_registry import SchemaRegistryClient
from typer.testing import CliRunner

from exchange.admin_client import AdminClient as Control
from exchange.identity.postgres import PostgresIdentityStore
from exchange.identity.secrets import FileSecrets
from exchange.identity.tokens import Users
from exchange.server.row_tags import open_row_tags
from registry.cli.main import app
from registry.client.admin import RegistryAdminClient
from registry.database.unit_of_work import PostgresDatabase
from schemas import library
from schemas.errors import PoolError, Reason, RefusedError, UnavailableError
from tests.kit.world.world import Office, World

pytestmark = [pytest.mark.e2e, pytest.mark.postgres]
RIGHTS = """
[registry]
profile = "ids"
restricted = ["credit.*"]

[[registry.rights]]
who = "role:connector"
operations = ["read"]
subjects = ["population.*"]

[[registry.rights]]
who = "account:ci-robot"
operations = ["register"]
subjects = ["free-*"]
"""
SUBJECT = "population.v1-value"
OPENED: list[RegistryAdminClient] = []
LOWER = json.dumps(
    {
        **json.loads(library.text("population")),
        "fields": [
            field | ({"level": "G2"} if field["name"] == "full_name" else {})
            for field in json.loads(library.text("population"))["fields"]
        ],
    },
    ensure_ascii=False,
)


@pytest.fixture(scope="module")
def pool() -> Iterator[World]:
    with World.start(RIGHTS) as world:
        yield world
        while OPENED:
            OPENED.pop().close()


@pytest.fixture(scope="module")
def police(pool: World) -> Office:
    office = pool.department("公安局")
    office.offer("population.v1", library.text("population"))
    office.offer("credit.v1", library.text("credit"), code="101001/000002")
    return office


def authority(pool: World) -> Path:
    return pool.data / "ca" / "authority.crt"


def token_of(account: Control) -> str:
    return account._headers["authorization"].removeprefix("Bearer ")


def registry(pool: World, account: Control | None = None, **how: object) -> RegistryAdminClient:
    token = token_of(account) if account is not None else None
    made = RegistryAdminClient(f"https://{pool.addresses['registry']}", token=token, authority=authority(pool), **how)  # type: ignore[arg-type]
    OPENED.append(made)
    return made


def connector(pool: World, office: Office, name: str) -> RegistryAdminClient:
    office.enrol(name)
    folder = pool.folder / "identities" / office.id / name
    return registry(pool, certificate=(folder / "tls.crt", folder / "tls.key"))


def denied(act: Callable[[], object]) -> Reason:
    """Return why a call is refused; wait where too many of these tests have failed from this address."""
    while True:
        with pytest.raises((RefusedError, UnavailableError)) as caught:
            act()
        if isinstance(caught.value, RefusedError):
            return caught.value.reason
        time.sleep(caught.value.retry_after or 1.0)


def test_a_revoked_token_is_refused_within_a_second_though_it_reads_by_id_all_the_time(
    pool: World, police: Office
) -> None:
    account = registry(pool, pool.account("leaver", "security_officer", police.id))
    path = f"/schemas/ids/{registry(pool, pool.root).version(SUBJECT)['id']}"
    for _ in range(50):
        assert account.get(path)["schema"]
    engine = sa.create_engine((pool.data / "database-url").read_text().strip())
    try:
        with PostgresDatabase(engine).begin() as work:
            tags = open_row_tags(FileSecrets.open(pool.data / "secrets"))
            Users(PostgresIdentityStore(tags)).revoke(work, "leaver", datetime.now(UTC))
        revoked = time.monotonic()
    finally:
        engine.dispose()

    def is_served() -> bool:
        try:
            account.get(path)
        except RefusedError:
            return False
        return True

    while is_served():
        assert time.monotonic() - revoked < 1
    for _ in range(20):
        assert denied(lambda: account.get(path)) is Reason.NO_IDENTITY


def test_each_read_by_id_of_a_restricted_subject_is_in_the_log(pool: World, police: Office) -> None:
    def entries() -> int:
        found = pool.root.get("/audit/entries", {"action": "registry:schema:read_by_id", "limit": 1000})
        return sum(one["entry"].get("resource") == "credit.v1-value" for one in found)

    reader = registry(pool, pool.root)
    path, before = f"/schemas/ids/{reader.version('credit.v1-value')['id']}", entries()
    for _ in range(5):
        assert reader.get(path)["schema"]
    assert entries() == before + 5


def test_nobody_gets_nothing(pool: World, police: Office) -> None:
    for path in ("/subjects", "/schemas/ids/1", "/config", "/governance/fields", "/approvals"):
        assert denied(lambda path=path: registry(pool).get(path)) is Reason.NO_IDENTITY


def test_a_token_goes_as_bearer_or_as_the_password_of_its_account(pool: World, police: Office) -> None:
    editor = police.account("catalogue_editor")
    name = f"catalogue-editor-{police.id[-6:]}"
    for one in (
        registry(pool, editor),
        registry(pool, user=(name, token_of(editor))),
        registry(pool, user=("", token_of(editor))),
    ):
        assert one.version(SUBJECT)["version"] == 1
    assert denied(lambda: registry(pool, user=("somebody", token_of(editor))).version(SUBJECT)) is Reason.NO_IDENTITY
    assert denied(lambda: registry(pool, user=(name, "pool_wrong")).version(SUBJECT)) is Reason.NO_IDENTITY


def test_a_connectors_certificate_is_who_it_is_until_it_is_revoked(pool: World, police: Office) -> None:
    labour = pool.department("人社局")
    sink = connector(pool, labour, "labour-sink")
    schema_id = sink.version(SUBJECT)["id"]
    assert sink.get(f"/schemas/ids/{schema_id}")["schema"]
    body = {"department": labour.id, "connector": "labour-sink", "reason": "试"}
    pool.root.post("/connectors/revocations", body)
    assert denied(lambda: sink.get(f"/schemas/ids/{schema_id}")) is Reason.NO_IDENTITY


def test_confluents_client_needs_nothing_but_its_own_settings(pool: World, police: Office) -> None:
    sink = pool.department("交通局")
    sink.enrol("card-sink")
    folder = pool.folder / "identities" / sink.id / "card-sink"
    trust = {"url": f"https://{pool.addresses['registry']}", "ssl.ca.location": str(authority(pool))}
    certificate = {"ssl.certificate.location": str(folder / "tls.crt"), "ssl.key.location": str(folder / "tls.key")}
    account = police.account("catalogue_editor")
    basic = {"basic.auth.user.info": f"catalogue-editor-{police.id[-6:]}:{token_of(account)}"}
    for proof in (certificate, basic):
        with SchemaRegistryClient(trust | proof) as client:
            assert client.get_latest_version(SUBJECT).version == 1


def test_without_a_right_an_account_reads_by_id_alone_and_nothing_of_what_is_restricted(
    pool: World, police: Office
) -> None:
    tax = pool.department("税务局")
    reader = registry(pool, tax.account("security_officer"))
    owner = registry(pool, police.account("catalogue_editor"))
    population, credit = (owner.version(f"{name}.v1-value")["id"] for name in ("population", "credit"))
    assert reader.get(f"/schemas/ids/{population}")["schema"]
    for path in ("/subjects", "/schemas", "/governance/fields"):
        assert reader.get(path) == [], "a list shows what may be read"
    for path in (f"/subjects/{SUBJECT}/versions", f"/schemas/ids/{credit}"):
        assert denied(lambda path=path: reader.get(path)) is Reason.ROLE_MISSING, path
    assert "credit.v1-value" in [*registry(pool, pool.root).subjects()]


def test_a_right_shows_its_subjects_in_lists_and_no_others(pool: World, police: Office) -> None:
    tax = pool.department("数据局")
    sink = connector(pool, tax, "tax-sink")
    assert [*sink.subjects()] == [SUBJECT]
    assert {one["subject"] for one in sink.get("/schemas")} == {SUBJECT}
    assert {one["subject"] for one in sink.get("/governance/fields", personal="D")} == {SUBJECT}
    assert (
        denied(lambda: sink.call("POST", "/subjects/free-value/versions", {"schema": '"int"'})) is Reason.ROLE_MISSING
    )


def test_a_right_lets_an_account_register_what_its_role_does_not(pool: World, police: Office) -> None:
    robot = registry(pool, pool.account("ci-robot", "security_officer", police.id))
    assert robot.call("POST", "/subjects/free-value/versions", {"schema": '"int"'})["id"] > 0
    assert (
        denied(lambda: robot.call("POST", "/subjects/other-value/versions", {"schema": '"int"'})) is Reason.ROLE_MISSING
    )
    assert denied(lambda: robot.call("DELETE", "/subjects/free-value")) is Reason.ROLE_MISSING


def test_reads_of_the_restricted_and_refusals_are_in_the_log(pool: World, police: Office) -> None:
    registry(pool, pool.root).version("credit.v1-value")
    registry(pool, pool.root).version(SUBJECT)
    entries = pool.root.get("/audit/entries", {"action": "registry:schema:read", "limit": 1000})
    allowed = {one["entry"].get("resource") for one in entries if one["entry"]["decision"] == "allow"}
    assert "credit.v1-value" in allowed
    assert SUBJECT not in allowed


def test_a_read_within_a_read_ends_and_leaves_both_entries(pool: World, police: Office) -> None:
    def told() -> int:
        entries = pool.root.get("/audit/entries", {"action": "registry:schema:read", "limit": 1000})
        return sum(one["entry"].get("resource") == "credit.v1-value" for one in entries)

    before = told()
    references = [{"name": "c", "subject": "credit.v1-value", "version": 1}]
    path = "/compatibility/subjects/credit.v1-value/versions/latest"
    found = registry(pool, pool.root).call("POST", path, {"schema": '"int"', "references": references})
    assert not found["is_compatible"]
    assert told() == before + 2


def test_a_list_that_names_the_restricted_is_in_the_log_with_their_number(pool: World, police: Office) -> None:
    def lists() -> list[dict[str, object]]:
        entries = pool.root.get("/audit/entries", {"action": "registry:schema:read", "limit": 1000})
        return [one["entry"]["data"] for one in entries if "restricted" in one["entry"].get("data", {})]

    before = len(lists())
    tax = registry(pool, pool.department("文旅局").account("security_officer"))
    tax.get("/subjects")
    assert len(lists()) == before, "it names none to who may not see them"
    schema_id = registry(pool, pool.root).version("credit.v1-value")["id"]
    for path in ("/subjects", "/schemas", f"/schemas/ids/{schema_id}/subjects", "/governance/fields"):
        assert "credit.v1-value" in json.dumps(registry(pool, pool.root).get(path))
    assert lists()[before:] == [{"restricted": 1}] * 4


def test_a_lowered_level_takes_two_people_of_the_department(pool: World, police: Office, tmp_path: Path) -> None:
    file = tmp_path / "lower.avsc"
    file.write_text(LOWER, encoding="utf-8")
    consumer = pool.department("医保局")
    grant = consumer.request("population.v1", ["id_number", "full_name"])
    police.approve(grant)

    def run(account: Control, *words: str) -> tuple[int, str]:
        token = tmp_path / "token"
        token.write_text(token_of(account))
        options = ["--url", f"https://{pool.addresses['registry']}", "--token-file", str(token)]
        options += ["--authority", str(authority(pool))]
        done = CliRunner().invoke(app, [*words, *options], env={"COLUMNS": "200", "NO_COLOR": "1"})
        return done.exit_code, done.output + done.stderr

    editor, officer = police.account("catalogue_editor"), police.account("security_officer")
    head = police.account("sharing_office_head")
    code, text = run(pool.root, "find", "--personal", "D", "--prefix", "population")
    assert (code, "id_number" in text, "credit" in text) == (0, True, False), text
    code, text = run(head, "diff", SUBJECT, str(file))
    assert code == 1
    assert "level approval" in text
    assert f"review {grant}" in text
    code, text = run(editor, "register", SUBJECT, str(file))
    assert code == 2
    assert "pool-schema approval ask" in text
    code, text = run(editor, "approval", "ask", SUBJECT, str(file), "--reason", "登记时定级过高")
    assert code == 0, text
    asked = text.split()[0]
    assert run(editor, "approval", "decide", asked, "--approve")[0] == 2, "an editor decides nothing"
    other = pool.department("民政局").account("security_officer")
    assert run(other, "approval", "decide", asked, "--approve")[0] == 2, "another department's officer neither"
    code, text = run(officer, "approval", "decide", asked, "--approve", "--reason", "同意")
    assert (code, "approved" in text) == (0, True), text
    code, text = run(editor, "register", SUBJECT, str(file))
    assert code == 0, text
    assert "version 2" in text
    entries = pool.root.get("/audit/entries", {"action": "registry:approval:decide", "limit": 1000})
    assert [one["entry"]["decision"] for one in entries].count("allow") == 1
    assert len(entries) >= 3


def test_a_departments_context_is_its_own(pool: World, police: Office) -> None:
    editor = registry(pool, police.account("catalogue_editor"))
    other = registry(pool, pool.department("教育局").account("catalogue_editor"))
    place = quote(f":.{police.id}:drafts-value", safe="")
    editor.call("POST", f"/subjects/{place}/versions", {"schema": '"long"'})
    assert editor.get(f"/subjects/{place}/versions") == [1]
    for act in (
        lambda: other.get(f"/subjects/{place}/versions"),
        lambda: other.call("POST", f"/subjects/{place}/versions", {"schema": '"long"'}),
    ):
        with pytest.raises(PoolError):
            act()
