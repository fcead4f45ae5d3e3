"""Attacks on who may act: one authority alone, one person with two accounts, the operator's folder, ended tokens."""

import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import sqlalchemy as sa
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from exchange.admin_client import AdminClient
from exchange.cli import main
from exchange.client import enrol, renew
from exchange.identity.authority import Authority
from exchange.identity.postgres_proposals import metadata
from exchange.identity.secrets import FileSecrets
from exchange.identity.tokens import fingerprint_of, new_token
from exchange.server.row_tags import open_row_tags
from registry.database.unit_of_work import PostgresDatabase
from schemas.errors import PoolError, Reason, RefusedError
from schemas.invitation import Invitation
from schemas.proto.pool.v1 import exchange_pb2 as wire
from schemas.proto.pool.v1 import exchange_pb2_grpc as stubs
from tests.kit.patience import PATIENCE, wait_for
from tests.kit.world.in_process import run
from tests.kit.world.short_periods import LONGEST_DELAY
from tests.kit.world.world import Office, World

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(300)]

SCHEMA = """{"type": "record", "name": "Permit", "zh": "许可", "doc": "Permits.", "key": ["permit_no"], "fields": [
    {"name": "permit_no", "type": "string", "zh": "许可证号", "level": "G2", "personal": "N", "sensitive": "N",
     "mask": "none"},
    {"name": "holder", "type": "string", "zh": "持有人", "level": "G2", "personal": "N", "sensitive": "N",
     "mask": "none"}]}"""


@pytest.fixture(scope="module")
def pool() -> Iterator[World]:
    with World.start() as world:
        yield world


@pytest.fixture(scope="module")
def police(pool: World) -> Office:
    office = pool.department("公安局")
    office.offer("permits.v1", SCHEMA, level="G2")
    return office


@pytest.fixture(scope="module")
def labour(pool: World) -> Office:
    return pool.department("人社局")


def refused(act: Callable[[], object]) -> Reason:
    with pytest.raises(PoolError) as caught:
        act()
    return caught.value.reason


def terms(name: str, role: str, department: str = "", staff_number: str = "") -> tuple[dict[str, Any], str]:
    token = new_token()
    body = {
        "name": name,
        "role": role,
        "department": department,
        "staff_number": staff_number or f"ATT-{name}",
        "token_fingerprint": fingerprint_of(token),
    }
    return body, token


def confirm(by: AdminClient, proposal: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    fingerprint = {"token_fingerprint": body["token_fingerprint"]}
    answer: dict[str, Any] = by.post(f"/proposals/{proposal['id']}/confirmation", fingerprint)
    return answer


def cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `pool` as an operator on the pool's machine, without an account of its own."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("POOL_TOKEN_FILE", "POOL_URL", "POOL_AUTHORITY", "POOL_DATA"):
            patch.delenv(name, raising=False)
        return run(main, *arguments)


# one authority alone


def test_one_authority_makes_neither_a_head_nor_a_connector(pool: World, police: Office) -> None:
    body, token = terms("false-head", "sharing_office_head", police.id)
    proposal = pool.root.post("/users", body)
    assert proposal["state"] == "open"
    assert "token" not in proposal
    assert refused(lambda: pool.remote(token).get("/grants")) is Reason.TOKEN_INVALID
    assert refused(lambda: confirm(pool.root, proposal, body)) is Reason.SAME_PERSON
    second = pool.people.second(pool)
    police.account("security_officer")
    assert refused(lambda: confirm(second, proposal, body)) is Reason.OTHER_DEPARTMENT
    invitation = pool.root.post(f"/departments/{police.id}/invitations", {"connector": "false"})
    assert "token" not in invitation
    for authority in (pool.root, second):
        wanted = Reason.SAME_PERSON if authority is pool.root else Reason.OTHER_DEPARTMENT
        confirmation = f"/proposals/{invitation['id']}/confirmation"
        assert refused(lambda by=authority, path=confirmation: by.post(path)) is wanted  # type: ignore[misc]


def test_who_proposes_cannot_put_a_token_of_its_own_in_the_holder_s_place(pool: World, police: Office) -> None:
    officer = police.account("security_officer")
    body, holders = terms("swapped", "sharing_office_head", police.id)
    proposal = pool.root.post("/users", {**body, "token_fingerprint": fingerprint_of(new_token())})
    assert refused(lambda: confirm(officer, proposal, body)) is Reason.REQUEST_INVALID
    assert refused(lambda: officer.post(f"/proposals/{proposal['id']}/confirmation")) is Reason.REQUEST_INVALID
    listed = next(one for one in officer.get("/proposals") if one["id"] == proposal["id"])
    assert not [value for value in listed.values() if "sha256" in str(value)]
    assert refused(lambda: pool.remote(holders).get("/grants")) is Reason.TOKEN_INVALID


def test_what_is_made_in_a_department_s_name_is_told_to_it_and_to_no_other(
    pool: World, police: Office, labour: Office
) -> None:
    body, _ = terms("told", "catalogue_editor", police.id)
    proposal = pool.root.post("/users", body)
    officer, head = police.account("security_officer"), police.account("sharing_office_head")
    for own in (officer, head):
        assert proposal["id"] in [one["id"] for one in own.get("/proposals", {"state": "open"})]
    confirm(officer, proposal, body)
    assert "told" in [one["name"] for one in officer.get("/users")]
    told = next(one for one in officer.get("/proposals", {"state": "confirmed"}) if one["id"] == proposal["id"])
    assert (told["proposed_by"], told["subject"]) == ("authority-1", "told")
    stranger = labour.account("security_officer")
    assert {one["department"] for one in stranger.get("/users")} == {labour.id}
    assert proposal["id"] not in [one["id"] for one in stranger.get("/proposals")]
    entries = pool.root.get("/audit/entries", {"resource": police.id, "limit": 1000})
    actions = {one["entry"]["action"] for one in entries if one["entry"]["data"].get("proposal") == proposal["id"]}
    assert actions == {"identity:user:add", "identity:proposal:confirm"}


def test_a_refused_or_ended_proposal_makes_nothing(pool: World, police: Office) -> None:
    officer = police.account("security_officer")
    body, token = terms("unwanted", "catalogue_editor", police.id)
    proposal = pool.root.post("/users", body)
    officer.post(f"/proposals/{proposal['id']}/refusal", {"reason": "nobody of that name works here"})
    assert refused(lambda: confirm(officer, proposal, body)) is Reason.TRANSITION_NOT_ALLOWED
    again = pool.root.post("/users", body)
    change(pool, "identity_proposal", again["id"], expires_at=datetime.now(UTC))
    assert refused(lambda: confirm(officer, again, body)) is Reason.TRANSITION_NOT_ALLOWED
    assert refused(lambda: pool.remote(token).get("/grants")) is Reason.TOKEN_INVALID


# one person


def test_one_person_under_two_accounts_does_not_sign_twice(pool: World, police: Office, labour: Office) -> None:
    people = pool.people
    editor = people.account(pool, "twin-editor", "catalogue_editor", labour.id, staff_number="LAB-7")
    head = people.account(pool, "twin-head", "sharing_office_head", labour.id, staff_number=" lab-7")
    assert editor.get("/grants") == head.get("/grants")
    for name, role, department in (
        ("twin-officer", "security_officer", labour.id),
        ("twin-police", "sharing_office_head", police.id),
        ("twin-auditor", "auditor", ""),
        ("twin-authority", "data_authority", ""),
    ):
        with pytest.raises(RefusedError) as caught:
            people.account(pool, name, role, department, staff_number="LAB-7")
        assert caught.value.reason is Reason.ROLE_FORBIDDEN, name
    # The person has moved: the old account is revoked, and what it requested is still that person's request.
    grant = head_request(head)
    labour.account("security_officer").post("/users/twin-head/revocation", {"reason": "moved to the police"})
    labour.account("security_officer").post("/users/twin-editor/revocation", {"reason": "moved to the police"})
    moved = people.account(pool, "twin-police", "sharing_office_head", police.id, staff_number="LAB-7")
    assert refused(lambda: moved.post(f"/grants/{grant}/approval")) is Reason.SAME_PERSON
    assert police.approve(grant)["state"] == "active"


def head_request(head: AdminClient) -> str:
    office = Office(None, "", {"sharing_office_head": head})  # type: ignore[arg-type]
    return office.request("permits.v1", ["permit_no"])


def test_an_account_of_an_earlier_version_gives_no_second_signature_until_its_person_is_set(
    pool: World, police: Office, labour: Office
) -> None:
    head = pool.people.account(pool, "old-head", "sharing_office_head", police.id)
    change(pool, "identity_account", "old-head", person="")
    grant = labour.request("permits.v1", ["permit_no"])
    assert refused(lambda: head.post(f"/grants/{grant}/approval")) is Reason.PERSON_UNKNOWN
    proposal = pool.root.post("/users/old-head/person", {"staff_number": "GA-99"})
    assert refused(lambda: pool.root.post(f"/proposals/{proposal['id']}/confirmation")) is Reason.SAME_PERSON
    police.account("security_officer").post(f"/proposals/{proposal['id']}/confirmation")
    assert head.post(f"/grants/{grant}/approval")["state"] == "active"


# the operator's folder


def test_the_first_token_has_ended_and_its_file_is_gone(pool: World) -> None:
    assert not (pool.data / "bootstrap-token").exists()
    first = next(one for one in pool.root.get("/users") if one["name"] == "bootstrap")
    assert first["revoked_at"] is not None


def test_the_first_token_adds_two_authorities_of_two_persons_and_nothing_else(tmp_path: Path) -> None:
    with World.served_without_set_up() as pool:
        token = (pool.data / "bootstrap-token").read_text().strip()
        first = pool.remote(token)
        for act in (
            lambda: first.get("/departments"),
            lambda: first.get("/users"),
            lambda: first.get("/audit/entries"),
            lambda: first.post("/users", terms("op", "operator")[0]),
        ):
            assert refused(act) in {Reason.ROLE_FORBIDDEN, Reason.ROLE_MISSING}
        added = first.post("/users", terms("a-1", "data_authority", staff_number="17")[0])
        assert added["state"] == "added"
        same = terms("a-2", "data_authority", staff_number="17")[0]
        assert refused(lambda: first.post("/users", same)) is Reason.ROLE_FORBIDDEN
        assert (pool.data / "bootstrap-token").exists()
        first.post("/users", terms("a-2", "data_authority", staff_number="18")[0])
        assert not (pool.data / "bootstrap-token").exists()
        assert refused(lambda: first.post("/users", terms("a-3", "data_authority")[0])) is Reason.TOKEN_INVALID


@pytest.mark.parametrize(
    "command",
    [
        ("user", "list"),
        ("user", "proposals"),
        ("department", "list"),
        ("grant", "list"),
        ("catalogue", "list"),
        ("connector", "list"),
        ("certificate", "list"),
        ("audit", "list"),
    ],
    ids=" ".join,
)
def test_the_pool_s_folder_gives_nobody_s_rights(pool: World, command: tuple[str, ...], tmp_path: Path) -> None:
    def with_options(*options: str) -> subprocess.CompletedProcess[str]:
        group, act = command
        given = ("--data", str(pool.data), *options)
        return cli(group, act, *given) if group == "audit" else cli(group, *given, act)

    done = with_options()
    assert done.returncode != 0
    assert "--token-file" in done.stderr
    token = tmp_path / "token"
    token.write_text(pool.people.tokens["authority-1"])
    done = with_options("--token-file", str(token))
    assert done.returncode == 0, done.stderr


# ended tokens


def test_a_revoked_a_rotated_and_an_ended_token_are_refused(pool: World, labour: Office) -> None:
    people = pool.people
    account = people.account(pool, "leaver", "catalogue_editor", labour.id)
    assert account.get("/departments")
    token = new_token()
    account.post("/users/leaver/token", {"token_fingerprint": fingerprint_of(token)})
    assert refused(lambda: account.get("/departments")) is Reason.TOKEN_INVALID
    rotated = pool.remote(token)
    assert rotated.get("/departments")
    change(pool, "identity_account", "leaver", expires_at=datetime.now(UTC))
    assert refused(lambda: rotated.get("/departments")) is Reason.TOKEN_EXPIRED
    officer = labour.account("security_officer")
    newest = new_token()
    proposal = pool.root.post("/users/leaver/token", {"token_fingerprint": fingerprint_of(newest)})
    assert refused(lambda: pool.remote(newest).get("/departments")) is Reason.TOKEN_INVALID
    officer.post(f"/proposals/{proposal['id']}/confirmation", {"token_fingerprint": fingerprint_of(newest)})
    assert pool.remote(newest).get("/departments")
    officer.post("/users/leaver/revocation", {"reason": "left the service"})
    assert refused(lambda: pool.remote(newest).get("/departments")) is Reason.CERTIFICATE_REVOKED


@pytest.mark.parametrize("leaver", ["confirmed", "proposed"])
def test_an_invitation_ends_with_the_account_that_took_part_in_it(pool: World, leaver: str, tmp_path: Path) -> None:
    """The officer who confirms an invitation has its token, and could wait for the day after it was dismissed."""
    office = pool.department(f"城管局{leaver}")
    officer = office.account("security_officer")
    colleague = pool.people.account(pool, f"colleague-{leaver}", "security_officer", office.id)

    def invite(proposing: AdminClient) -> str:
        proposal = proposing.post(f"/departments/{office.id}/invitations", {"connector": None})
        return str(officer.post(f"/proposals/{proposal['id']}/confirmation")["token"])

    tokens = {"with a colleague": invite(colleague), "with the authority": invite(pool.root)}
    leaving = f"colleague-{leaver}" if leaver == "proposed" else f"security-officer-{office.id[-6:]}"
    pool.root.post(f"/users/{leaving}/revocation", {"reason": "dismissed"})
    ended = {"with a colleague"} if leaver == "proposed" else set(tokens)
    for number, (name, token) in enumerate(tokens.items()):
        where = tmp_path / str(number)
        if name in ended:
            assert refused(lambda n=number, t=token, w=where: enrol(t, f"ghost-{n}", w)) is Reason.TOKEN_INVALID  # type: ignore[misc]
        else:
            assert enrol(token, f"ghost-{number}", where).department == office.id


def test_one_person_gets_no_account_in_two_departments_at_one_moment(
    pool: World, police: Office, labour: Office
) -> None:
    for turn in range(12):
        barrier = threading.Barrier(2)

        def made(office: Office, turn: int = turn, barrier: threading.Barrier = barrier) -> str:
            officer = office.account("security_officer")
            body, _ = terms(f"twice-{turn}-{office.id[-6:]}", "sharing_office_head", office.id, f"TWICE-{turn}")
            proposal = pool.root.post("/users", body)
            barrier.wait()
            try:
                return str(confirm(officer, proposal, body)["state"])
            except RefusedError as error:
                return str(error.reason)

        with ThreadPoolExecutor(2) as threads:
            assert sorted(threads.map(made, (police, labour))) == ["confirmed", "role_forbidden"]


def test_nobody_s_account_is_rotated_or_revoked_by_another_department(
    pool: World, police: Office, labour: Office
) -> None:
    pool.people.account(pool, "victim", "catalogue_editor", labour.id)
    stranger = police.account("security_officer")
    fingerprint = {"token_fingerprint": fingerprint_of(new_token())}
    assert refused(lambda: stranger.post("/users/victim/token", fingerprint)) is Reason.OTHER_DEPARTMENT
    reason = {"reason": "because"}
    assert refused(lambda: stranger.post("/users/victim/revocation", reason)) is Reason.OTHER_DEPARTMENT
    editor = police.account("catalogue_editor")
    assert refused(lambda: editor.post("/users/victim/token", fingerprint)) is Reason.ROLE_MISSING


def test_two_authorities_stay(pool: World) -> None:
    second = pool.people.second(pool)
    for name in ("authority-1", "authority-2"):
        act = {"reason": "alone at last"}
        path = f"/users/{name}/revocation"
        assert refused(lambda path=path, act=act: second.post(path, act)) is Reason.TRANSITION_NOT_ALLOWED  # type: ignore[misc]


def test_the_list_tells_the_last_use_and_no_token(pool: World) -> None:
    listed = {one["name"]: one for one in pool.root.get("/users")}
    assert listed["authority-1"]["last_used"] is not None
    for token in pool.people.tokens.values():
        assert token not in str(listed)
        assert fingerprint_of(token) not in str(listed)


# departments that end


def test_what_an_ended_department_had_ends_with_it(pool: World, police: Office) -> None:
    tax = pool.department("税务局")
    identity = tax.enrol("drawer")
    grant = tax.request("permits.v1", ["permit_no"])
    police.approve(grant)
    reason = {"reason": "its duties have ended"}
    for refused_one in (tax.account("security_officer"), pool.people.account(pool, "op-1", "operator")):
        path = f"/departments/{tax.id}/deactivation"
        wanted = {Reason.ROLE_MISSING, Reason.ROLE_FORBIDDEN}
        assert refused(lambda by=refused_one, path=path: by.post(path, reason)) in wanted  # type: ignore[misc]
    renamed = pool.root.post(f"/departments/{tax.id}/renaming", {"name": "某市税务总局", "short_name": "税务总局"})
    assert (renamed["short_name"], renamed["status"]) == ("税务总局", "active")
    assert refused(lambda: pool.root.post(f"/departments/{police.id}/deactivation", reason)) is (
        Reason.TRANSITION_NOT_ALLOWED
    ), "it provides resources"
    assert pool.root.post(f"/departments/{tax.id}/deactivation", reason)["status"] == "abolished"
    assert refused(lambda: tax.account("security_officer").get("/users")) is Reason.CERTIFICATE_REVOKED
    with pool.client(identity) as client:
        fetch = partial(client.fetch, grant, purpose="eligibility", case="STANDING-1")
        assert refused(fetch) in {Reason.CERTIFICATE_REVOKED, Reason.DEPARTMENT_INACTIVE}
    states = {one["id"]: one["state"] for one in pool.root.get("/grants")}
    assert states[grant] == "terminated"
    assert pool.root.post(f"/departments/{tax.id}/deactivation", reason)["status"] == "abolished", "repeated"


def test_a_merged_department_names_its_successor_and_moves_nothing(pool: World, labour: Office) -> None:
    old = pool.department("旧局")
    merger = {"into": labour.id, "reason": "merged by decision of the city"}
    path = f"/departments/{old.id}/merger"
    assert refused(lambda: pool.root.post(path, {**merger, "into": old.id})) is Reason.REQUEST_INVALID
    merged = pool.root.post(path, merger)
    assert (merged["status"], merged["successor"]) == ("merged", labour.id)
    renaming = {"name": "某市旧局", "short_name": "旧局"}
    wanted = Reason.TRANSITION_NOT_ALLOWED
    assert refused(lambda: pool.root.post(f"/departments/{old.id}/renaming", renaming)) is wanted


# failed authentications


def test_two_hundred_wrong_tokens_leave_an_entry_and_a_metric_and_are_slowed() -> None:
    with World.start() as pool:
        known = pool.people.account(pool, "known", "auditor")
        assert known.get("/users")
        new = pool.people.account(pool, "new-here", "auditor")
        with httpx.Client(
            base_url=f"https://{pool.addresses['http']}/v1",
            verify=ssl.create_default_context(cafile=str(pool.data / "ca" / "authority.crt")),
        ) as http:
            answers = [
                http.get("/departments", headers={"authorization": f"Bearer pool_wrong{n}"}).status_code
                for n in range(200)
            ]
            retry = http.get("/departments", headers={"authorization": "Bearer pool_wrong"}).headers["retry-after"]
        assert set(answers) == {401, 429}
        assert answers.count(429) > 100
        assert 1 <= int(retry) <= LONGEST_DELAY
        assert known.get("/users"), "a token that was right before passes at once"
        assert new.get("/users"), "a right token that is new passes after the delay"
        with httpx.Client() as http:
            shown = http.get(f"http://{pool.addresses['metrics']}/metrics").text
        assert 'pool_authentications_failed_total{interface="http",reason="too_many_failures"}' in shown
        assert failures(pool)[0]["reason"] == "token_invalid"
        log = (pool.folder / "pool.log").read_text()
        assert "authentication_failed" in log
        assert "pool_wrong" not in log
        pool.stop()
        pool.serve()
        folded = [one["data"]["folded"] for one in failures(pool) if "folded" in one["data"]]
        # 201 attempts, the first of which has an entry of its own, and those of the new account that had to wait.
        assert 200 <= sum(folded) <= 204


def test_who_fails_behind_an_address_keeps_no_connector_from_renewing_or_from_the_registry() -> None:
    with World.start() as pool:
        identity = pool.department("公安局").enrol("honest")
        folder = pool.folder / "identities" / identity.department / identity.connector
        trusted = ssl.create_default_context(cafile=str(pool.data / "ca" / "authority.crt"))
        certified = ssl.create_default_context(cafile=str(pool.data / "ca" / "authority.crt"))
        certified.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        wrong = {"authorization": "Bearer pool_wrong"}
        with httpx.Client(verify=trusted, headers=wrong) as stranger, httpx.Client(verify=certified) as connector:
            tried = f"https://{pool.addresses['http']}/v1/departments"
            longest = str(int(LONGEST_DELAY))
            wait_for(lambda: stranger.get(tried).headers.get("retry-after") == longest, "the longest delay")
            assert connector.get(f"https://{pool.addresses['registry']}/subjects").status_code == 200
            too_early = Reason.TRANSITION_NOT_ALLOWED
            assert refused(lambda: renew(identity, folder)) is too_early


def test_wrong_invitations_and_registry_passwords_are_told_too() -> None:
    with World.start() as pool:
        office = pool.department("公安局")
        honest = Invitation.decode(pool.people.invite(pool, office.id, "honest"))
        for n in range(4):  # fewer than cause a delay, so that the registry looks at the first password
            false = Invitation(address=honest.address, authority=honest.authority, secret=f"guess-{n}").encode()
            with pytest.raises(PoolError) as caught:
                enrol(false, "planted", pool.folder / "identities" / f"planted-{n}")
            assert caught.value.reason in {Reason.TOKEN_INVALID, Reason.TOO_MANY_FAILURES}
        url = f"https://{pool.addresses['registry']}/subjects"
        trusted = ssl.create_default_context(cafile=str(pool.data / "ca" / "authority.crt"))
        with httpx.Client(verify=trusted) as http:
            for n in range(15):
                assert http.get(url, auth=("authority-1", f"guess-{n}")).status_code in {401, 429}
        assert {one["resource"] for one in failures(pool)} >= {"enrolment", "registry"}


def test_a_certificate_that_names_another_pool_is_told_by_the_gateway_too() -> None:
    with World.start() as pool:
        key = ec.generate_private_key(ec.SECP256R1())
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
        # The authority has signed it, so that the connection stands; the name in it is no connector's of this pool.
        issued = Authority.load(pool.data / "ca", "another-pool").client(
            request.public_bytes(Encoding.DER), department="d", connector="c", now=datetime.now(UTC)
        )
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        credentials = grpc.ssl_channel_credentials(
            (pool.data / "ca" / "authority.crt").read_bytes(), private, issued.certificate
        )
        with grpc.secure_channel(pool.addresses["gateway"], credentials) as channel:
            hello = stubs.ExchangeStub(channel).Hello  # type: ignore[no-untyped-call]  # generated
            for _ in range(3):
                with pytest.raises(grpc.RpcError) as caught:
                    hello(wire.HelloRequest(), timeout=PATIENCE)
                assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        wait_for(lambda: "grpc" in {one["resource"] for one in failures(pool)}, "the entry of the failures")
        (told,) = (one for one in failures(pool) if one["resource"] == "grpc")
        assert told["reason"] == Reason.NO_IDENTITY
        shown = httpx.get(f"http://{pool.addresses['metrics']}/metrics").text
        assert 'pool_authentications_failed_total{interface="grpc",reason="no_identity"}' in shown


def failures(pool: World) -> list[dict[str, Any]]:
    found = pool.root.get("/audit/entries", {"action": "identity:caller:authenticate", "limit": 100})
    return [{"data": {}, **one["entry"]} for one in found]


def change(pool: World, table: str, key: str, **values: object) -> None:
    """Change a row with its tag, as the pool would, where a test cannot wait for the time."""
    tags = open_row_tags(FileSecrets.open(pool.data / "secrets"))
    engine = sa.create_engine((pool.data / "database-url").read_text().strip())
    try:
        changed = metadata.tables[table]
        with PostgresDatabase(engine).begin() as work:
            assert len(tags.change(work, changed, next(iter(changed.primary_key.columns)) == key, values)) == 1
    finally:
        engine.dispose()
