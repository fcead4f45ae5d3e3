"""What every store of identities keeps true, and what enrolment makes of it, on the twin and on PostgreSQL."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric import ed25519

from exchange.identity.authority import Authority
from exchange.identity.enrolment import CertificateStatus, Connectors, EnrolledConnector
from exchange.identity.postgres import PostgresIdentityStore, metadata
from exchange.identity.store import (
    Account,
    Certificate,
    MemoryIdentityStore,
    OneTimeToken,
    SigningKey,
)
from registry.database.unit_of_work import MemoryDatabase, PostgresDatabase
from schemas.access import Actor, Role
from schemas.errors import ConflictError, InvalidError, Reason, RefusedError
from schemas.invitation import Invitation
from tests.kit.cases.grants import CONSUMER, NOW, PROVIDER
from tests.kit.cases.identity import DAY, Home
from tests.kit.row_tags import row_tags
from tests.kit.world.certificates import a_request, p256

WAIT, BLOCKED = 10.0, 0.3  # seconds


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.postgres)])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Home]:
    authority = Authority.create(tmp_path / "authority", "city-pool", NOW - 400 * DAY)
    if request.param == "memory":
        yield Home(MemoryIdentityStore(), MemoryDatabase(), authority)
    else:
        engine: sa.Engine = request.getfixturevalue("engine")
        metadata.create_all(engine)
        yield Home(PostgresIdentityStore(row_tags()), PostgresDatabase(engine), authority)


# the store


def a_certificate(**changes: Any) -> Certificate:
    return replace(
        Certificate(serial="a1", department=CONSUMER, connector="benefits", not_before=NOW, not_after=NOW + 30 * DAY),
        **changes,
    )


def test_what_is_kept_is_given_back(home: Home) -> None:
    token = OneTimeToken(
        digest=bytes(32), department=CONSUMER, connector=None, invited_by="o", created_at=NOW, expires_at=NOW + DAY
    )
    account = Account(
        name="li.ps",
        role=Role.AUDITOR,
        department="",
        digest=bytes(32),
        created_by="root",
        created_at=NOW,
        person="A-17",
        expires_at=NOW + DAY,
    )
    with home.db.begin() as work:
        home.store.add_invitation(work, token)
        home.store.add_certificate(work, a_certificate())
        home.store.add_account(work, account)
    with home.db.begin() as work:
        assert home.store.invitation(work, bytes(32)) == token
        assert home.store.certificate(work, "a1") == a_certificate()
        assert home.store.account(work, "li.ps") == home.store.account_of(work, bytes(32)) == account
        assert list(home.store.accounts(work)) == [account]
        assert home.store.invitation(work, b"x" * 32) is None
        assert home.store.certificate(work, "a2") is None
        named = home.store.accounts_by_name(work, {"li.ps", "nobody"})
        assert named == {"li.ps": home.store.account(work, "li.ps")}
        assert home.store.account(work, "nobody") is home.store.account_of(work, b"x" * 32) is None


def test_certificates_are_revoked_by_department_connector_and_serial(home: Home) -> None:
    held = [
        a_certificate(),
        a_certificate(serial="a2", not_before=NOW + DAY),
        a_certificate(serial="b1", connector="tax"),
        a_certificate(serial="c1", department=PROVIDER),
    ]
    with home.db.begin() as work:
        for certificate in reversed(held):
            home.store.add_certificate(work, certificate)
        assert [c.serial for c in home.store.certificates(work, CONSUMER)] == ["a1", "b1", "a2"]
        assert [c.serial for c in home.store.certificates(work, CONSUMER, "tax")] == ["b1"]
    why: dict[str, Any] = {"at": NOW, "by": "officer", "because": "stolen"}
    with home.db.begin() as work:
        assert list(home.store.revoke_certificates(work, department=PROVIDER, serial="a1", **why)) == []
        assert list(home.store.revoke_certificates(work, department=CONSUMER, serial="a1", **why)) == ["a1"]
        revoked = home.store.certificate(work, "a1")
        assert revoked == a_certificate(revoked_at=NOW, revoked_by="officer", revoked_because="stolen")
        assert list(home.store.revoke_certificates(work, department=CONSUMER, connector="benefits", **why)) == ["a2"]
        assert list(home.store.revoke_certificates(work, department=CONSUMER, **why)) == ["b1"]
        later = why | {"at": NOW + DAY, "because": "again"}
        assert list(home.store.revoke_certificates(work, department=CONSUMER, **later)) == []
        assert home.store.certificate(work, "a1") == revoked
        found = home.store.certificates_by_serial(work, ["a1", "c1", "none"])
        assert found == {"a1": revoked, "c1": held[3]}


def test_an_account_s_unused_invitations_are_withdrawn_and_no_others(home: Home) -> None:
    def token(number: int, invited_by: str) -> OneTimeToken:
        return OneTimeToken(
            digest=bytes([number]) * 32,
            department=CONSUMER if number % 2 else PROVIDER,
            connector=None,
            invited_by=invited_by,
            created_at=NOW,
            expires_at=NOW + DAY,
        )

    tokens = [token(number, by) for number, by in enumerate(("li+wang", "wang+li", "li", "li+wa", "liu+li.x", "li+wu"))]
    with home.db.begin() as work:
        for one in tokens:
            home.store.add_invitation(work, one)
        assert home.store.use_invitation(work, tokens[5].digest, NOW)
        assert not home.store.use_invitation(work, tokens[5].digest, NOW + DAY), "once"
        assert home.store.withdraw_invitations_of(work, "wang", NOW) == 2
        assert home.store.withdraw_invitations_of(work, "li", NOW) == 2
        found = [home.store.invitation(work, one.digest) for one in tokens]
    assert [one is not None and one.used_at is not None for one in found] == [True, True, True, True, False, True]


def test_what_is_rolled_back_never_happened(home: Home) -> None:
    secret = home.invite()

    def fail_in_the_end() -> None:
        with home.db.begin() as work:
            home.store.add_certificate(work, a_certificate())
            key = SigningKey(department=CONSUMER, connector="benefits", public_key=bytes(32), since=NOW)
            home.store.set_signing_key(work, key)
            home.store.withdraw_invitations(work, department=CONSUMER, connector=None, at=NOW)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_in_the_end()
    with home.db.begin() as work:
        assert home.store.certificate(work, "a1") is None
        assert list(home.store.signing_keys(work, CONSUMER, "benefits")) == []
    assert home.enrol(secret)


def test_issue_and_revocation_of_one_department_take_turns(home: Home) -> None:
    done = threading.Event()

    def revoke() -> None:
        home.revoke()
        done.set()

    with home.db.begin() as work:
        home.store.lock_department(work, CONSUMER)
        thread = threading.Thread(target=revoke, daemon=True)
        thread.start()
        assert not done.wait(BLOCKED)
        home.store.add_certificate(work, a_certificate())
    assert done.wait(WAIT)
    thread.join()
    with home.db.begin() as work:
        assert Connectors(home.store).status(work, "a1") is CertificateStatus.REVOKED


# enrolment


def test_an_invitation_makes_a_connector(home: Home) -> None:
    secret = home.invite()
    with home.db.begin() as work:
        expected = home.enrolment.invited_actor(work, secret=secret, connector="benefits", at=NOW)
    enrolled = home.enrol(secret)
    actor = home.actor(enrolled)
    assert (enrolled.department, enrolled.connector, enrolled.pool_id) == (CONSUMER, "benefits", "city-pool")
    assert actor == replace(expected, certificate=enrolled.serial)
    assert enrolled.not_after == NOW + 30 * DAY
    assert home.status(enrolled) is CertificateStatus.ACTIVE


def test_an_invitation_carries_the_address_and_the_authority_and_is_stored_as_a_digest(home: Home) -> None:
    with home.db.begin() as work:
        line = home.enrolment.invite(
            work, department=CONSUMER, connector=None, address="pool.example.gov:7444", by="officer", at=NOW
        )
    invitation = Invitation.decode(f"  {line[:76]}\n{line[76:]}\n")
    assert invitation.address == "pool.example.gov:7444"
    assert invitation.authority.encode() == home.authority.certificate
    assert invitation.secret not in repr(invitation)
    for damaged in ("", "x", line[:-8], line[:200], "e30", line.replace("e", "*")):
        with pytest.raises(InvalidError) as error:
            Invitation.decode(damaged)
        assert error.value.reason is Reason.TOKEN_INVALID


def test_an_invitation_is_used_once(home: Home) -> None:
    secret = home.invite()
    home.enrol(secret)
    for connector in ("benefits", "another"):
        with pytest.raises(RefusedError) as error:
            home.enrol(secret, connector)
        assert error.value.reason is Reason.TOKEN_INVALID


def test_of_many_machines_with_one_invitation_one_enrols(home: Home) -> None:
    secret = home.invite()

    def enrol(n: int) -> bool:
        try:
            home.enrol(secret, f"machine-{n}")
        except RefusedError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(enrol, range(8))) == 1


def test_an_invitation_ends_after_seven_days(home: Home) -> None:
    with pytest.raises(RefusedError):
        home.enrol(home.invite(), at=NOW + 7 * DAY)
    assert home.enrol(home.invite(), at=NOW + 7 * DAY - timedelta(microseconds=1))


def test_an_invitation_for_one_connector_serves_no_other(home: Home) -> None:
    secret = home.invite(connector="benefits")
    with pytest.raises(RefusedError) as error:
        home.enrol(secret, "tax")
    assert error.value.reason is Reason.TOKEN_INVALID
    assert home.enrol(secret, "benefits")


@pytest.mark.parametrize("secret", ["", "guess", "\ud800"])
def test_a_guess_is_refused(home: Home, secret: str) -> None:
    with pytest.raises(RefusedError) as error:
        home.enrol(secret)
    assert error.value.reason is Reason.TOKEN_INVALID


def test_the_signing_key_is_proved_for_this_very_request(home: Home) -> None:
    secret, key = home.invite(), ed25519.Ed25519PrivateKey.generate()
    for changes in (
        {"signing_key": key.public_key().public_bytes_raw()},
        {"signing_key": b"short"},
        {"signing_proof": bytes(64)},
        {"signing_proof": b""},
        {"request": a_request(p256())},
    ):
        with pytest.raises(InvalidError) as error:
            home.enrol(secret, **changes)
        assert error.value.reason is Reason.SIGNATURE_INVALID
    assert home.enrol(secret)


def test_a_refused_enrolment_leaves_the_invitation_good(home: Home) -> None:
    secret = home.invite()
    for connector in ("Bad Name", "../x"):
        with pytest.raises(InvalidError):
            home.enrol(secret, connector)
    assert home.enrol(secret)


def test_an_existing_connector_moves_only_by_an_invitation_that_names_it(home: Home) -> None:
    first = home.enrol(home.invite())
    with pytest.raises(ConflictError) as error:
        home.enrol(home.invite())
    assert error.value.reason is Reason.ALREADY_EXISTS
    assert home.status(first) is CertificateStatus.ACTIVE
    assert home.enrol(home.invite(PROVIDER))  # another department's connector of the same name is another connector
    second = home.enrol(home.invite(connector="benefits"), at=NOW + DAY)
    assert home.status(first) is CertificateStatus.REVOKED
    assert home.status(second) is CertificateStatus.ACTIVE


def test_public_signing_keys_are_kept_for_ever_with_their_times(home: Home) -> None:
    keys = [ed25519.Ed25519PrivateKey.generate() for _ in range(3)]
    raw = [key.public_key().public_bytes_raw() for key in keys]
    for n, key in enumerate(keys):
        request = a_request(p256())
        at = NOW + n * 40 * DAY
        home.enrol(
            home.invite(connector="benefits", at=at),
            at=at,
            request=request,
            signing_key=raw[n],
            signing_proof=key.sign(request),
        )
    home.revoke(at=NOW + 90 * DAY)
    connectors = Connectors(home.store)
    with home.db.begin() as work:
        assert [key.public_key for key in connectors.signing_keys(work, CONSUMER, "benefits")] == raw
        for days, n in ((0, 0), (39.99, 0), (40, 1), (80, 2), (4_000, 2)):
            assert connectors.signing_key(work, CONSUMER, "benefits", NOW + days * DAY) == raw[n]
        for connector, at in (("benefits", NOW - DAY), ("another", NOW)):
            with pytest.raises(InvalidError):
                connectors.signing_key(work, CONSUMER, connector, at)


# renewal


def renew(home: Home, actor: Actor, at: datetime) -> EnrolledConnector:
    with home.db.begin() as work:
        return home.enrolment.renew(work, actor, a_request(p256()), at)


def test_a_certificate_is_renewed_from_day_twenty_until_its_end(home: Home) -> None:
    enrolled = home.enrol(home.invite())
    actor = home.actor(enrolled)
    with pytest.raises(RefusedError) as early:
        renew(home, actor, NOW + 19 * DAY)
    assert early.value.reason is Reason.TRANSITION_NOT_ALLOWED
    with pytest.raises(RefusedError) as late:
        renew(home, actor, NOW + 30 * DAY)
    assert late.value.reason is Reason.CERTIFICATE_EXPIRED
    for at in (NOW + 20 * DAY, NOW + 29 * DAY):  # the second time since the first answer was lost
        renewed = renew(home, actor, at)
        assert renewed.not_after == at + 30 * DAY
        assert home.actor(renewed, at) == replace(actor, certificate=renewed.serial)
        assert home.status(renewed) is CertificateStatus.ACTIVE
    assert home.status(enrolled) is CertificateStatus.ACTIVE
    with home.db.begin() as work:
        assert len(Connectors(home.store).signing_keys(work, CONSUMER, "benefits")) == 1
        assert len(Connectors(home.store).certificates(work, CONSUMER)) == 3


def test_a_lost_certificate_renews_nothing(home: Home) -> None:
    actor = home.actor(home.enrol(home.invite()))
    for impostor in (replace(actor, certificate="beef"), replace(actor, id="tax"), replace(actor, department=PROVIDER)):
        with pytest.raises(RefusedError) as error:
            renew(home, impostor, NOW + 25 * DAY)
        assert error.value.reason is Reason.CERTIFICATE_REVOKED
    home.revoke()
    with pytest.raises(RefusedError) as error:
        renew(home, actor, NOW + 25 * DAY)
    assert error.value.reason is Reason.CERTIFICATE_REVOKED


# revocation


def test_revocation_holds_at_once_and_hits_what_it_names(home: Home) -> None:
    benefits, tax = home.enrol(home.invite()), home.enrol(home.invite(), "tax")
    owner = home.enrol(home.invite(PROVIDER), "owner")
    assert home.revoke(connector="benefits") == [benefits.serial]
    assert home.status(benefits) is CertificateStatus.REVOKED
    assert home.status(tax) is CertificateStatus.ACTIVE
    assert home.revoke(serial=owner.serial) == []  # of another department
    assert home.revoke() == [tax.serial]
    assert home.status(owner) is CertificateStatus.ACTIVE
    with pytest.raises(InvalidError, match="reason"):
        home.revoke(because=" ")


def test_revocation_withdraws_the_invitations_too(home: Home) -> None:
    unbound, bound, other = home.invite(), home.invite(connector="benefits"), home.invite(connector="tax")
    elsewhere = home.invite(PROVIDER)
    home.revoke(connector="benefits")
    with pytest.raises(RefusedError):
        home.enrol(bound)
    assert home.enrol(other, "tax")
    home.revoke()
    with pytest.raises(RefusedError):
        home.enrol(unbound, "new")
    assert home.enrol(elsewhere)


def test_a_certificate_that_the_pool_does_not_know_counts_as_revoked(home: Home) -> None:
    with home.db.begin() as work:
        assert Connectors(home.store).status(work, "c0ffee") is CertificateStatus.REVOKED


@pytest.mark.postgres
def test_a_revocation_waits_for_whoever_holds_the_certificate(engine: sa.Engine) -> None:
    metadata.create_all(engine)
    store, db = PostgresIdentityStore(row_tags()), PostgresDatabase(engine)
    with db.begin() as work:
        store.add_certificate(work, a_certificate())
    revoked = threading.Event()

    def revoke() -> None:
        with db.begin() as work:
            store.revoke_certificates(work, department=CONSUMER, at=NOW, by="officer", because="stolen")
        revoked.set()

    with ThreadPoolExecutor(1) as other:
        with db.begin() as work:
            assert store.lock_certificate(work, "a1") == a_certificate()
            running = other.submit(revoke)
            assert not revoked.wait(BLOCKED), "the release that was decided upon must end first"
        running.result(WAIT)
    with db.begin() as work:
        held = store.certificate(work, "a1")
    assert held is not None
    assert held.revoked_at == NOW
