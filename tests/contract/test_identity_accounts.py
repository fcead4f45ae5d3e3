"""What accounts and their tokens keep true, on the memory twin and on PostgreSQL."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa

from exchange.identity.account_rules import LONGEST_TOKEN, POOL_ROLES, staff_number
from exchange.identity.authority import Authority
from exchange.identity.last_use import LastUse
from exchange.identity.postgres import PostgresIdentityStore, metadata
from exchange.identity.store import Account, MemoryIdentityStore
from exchange.identity.tokens import Users, digest_of, new_token
from registry.database.unit_of_work import MemoryDatabase, PostgresDatabase
from schemas.access import Actor, ActorKind, Role
from schemas.errors import ConflictError, InvalidError, PoolError, Reason, RefusedError
from tests.kit.cases.grants import CONSUMER, NOW, PROVIDER
from tests.kit.cases.identity import DAY, Home
from tests.kit.row_tags import row_tags

SECOND = timedelta(seconds=1)


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.postgres)])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Home]:
    authority = Authority.create(tmp_path / "authority", "city-pool", NOW - 400 * DAY)
    if request.param == "memory":
        yield Home(MemoryIdentityStore(), MemoryDatabase(), authority)
    else:
        engine: sa.Engine = request.getfixturevalue("engine")
        metadata.create_all(engine)
        yield Home(PostgresIdentityStore(row_tags()), PostgresDatabase(engine), authority)


# people


def add(
    home: Home, name: str, role: Role = Role.SHARING_OFFICE_HEAD, department: str = CONSUMER, person: str = ""
) -> str:
    token = new_token()
    with home.db.begin() as work:
        Users(home.store).add(
            work,
            name=name,
            role=role,
            department=department,
            person=person or f"P-{len(Users(home.store).all(work))}",
            digest=digest_of(token),
            by="root",
            at=NOW,
        )
    return token


def whoami(home: Home, token: str, at: datetime = NOW) -> Actor:
    with home.db.begin() as work:
        return Users(home.store).authenticate(work, token, at)


def test_a_token_is_its_account_and_is_stored_as_a_digest(home: Home) -> None:
    token = add(home, "wang.hr")
    other = add(home, "root", Role.DATA_AUTHORITY, "")
    assert whoami(home, token) == Actor(
        kind=ActorKind.HUMAN, id="wang.hr", department=CONSUMER, role=Role.SHARING_OFFICE_HEAD
    )
    assert whoami(home, other).role is Role.DATA_AUTHORITY
    assert token != other
    with home.db.begin() as work:
        assert all(token.encode() not in account.digest for account in Users(home.store).all(work))
        assert [account.name for account in Users(home.store).all(work)] == ["root", "wang.hr"]


@pytest.mark.parametrize("token", ["", "pool_", "pool_guess", "\ud800"])
def test_a_token_that_is_nobody_s_is_refused(home: Home, token: str) -> None:
    add(home, "wang.hr")
    with pytest.raises(RefusedError) as error:
        whoami(home, token)
    assert error.value.reason is Reason.TOKEN_INVALID


def test_a_revoked_account_is_over_and_its_name_stays_taken(home: Home) -> None:
    token = add(home, "wang.hr")
    users = Users(home.store)
    with home.db.begin() as work:
        users.revoke(work, "wang.hr", NOW + DAY)
    with pytest.raises(RefusedError) as error:
        whoami(home, token)
    assert error.value.reason is Reason.CERTIFICATE_REVOKED
    with pytest.raises(ConflictError):
        add(home, "wang.hr")
    for act in (
        lambda work: users.rotate(work, "wang.hr", digest_of(new_token()), NOW),
        lambda work: users.revoke(work, "wang.hr", NOW),
        lambda work: users.set_person(work, "wang.hr", "P-7"),
    ):
        with pytest.raises(InvalidError), home.db.begin() as work:
            act(work)


def test_a_new_token_ends_the_old_one(home: Home) -> None:
    old, new = add(home, "wang.hr"), new_token()
    with home.db.begin() as work:
        Users(home.store).rotate(work, "wang.hr", digest_of(new), NOW + DAY)
    assert whoami(home, new).id == "wang.hr"
    with pytest.raises(RefusedError):
        whoami(home, old)


def test_a_token_ends_after_90_days_and_a_rotated_one_90_days_later(home: Home) -> None:
    token = add(home, "wang.hr")
    assert whoami(home, token, NOW + LONGEST_TOKEN - SECOND).id == "wang.hr"
    with pytest.raises(RefusedError) as error:
        whoami(home, token, NOW + LONGEST_TOKEN)
    assert error.value.reason is Reason.TOKEN_EXPIRED
    new = new_token()
    with home.db.begin() as work:
        Users(home.store, lifetime=10 * LONGEST_TOKEN).rotate(work, "wang.hr", digest_of(new), NOW + DAY)
    assert whoami(home, new, NOW + LONGEST_TOKEN).id == "wang.hr"
    with pytest.raises(RefusedError):
        whoami(home, new, NOW + LONGEST_TOKEN + DAY)


def test_two_accounts_never_have_one_token(home: Home) -> None:
    token = add(home, "wang.hr")
    add(home, "li.hr", Role.CATALOGUE_EDITOR)
    users = Users(home.store)
    with pytest.raises(ConflictError), home.db.begin() as work:
        users.rotate(work, "li.hr", digest_of(token), NOW)
    with pytest.raises(ConflictError), home.db.begin() as work:
        users.add(
            work,
            name="zhao.hr",
            role=Role.SECURITY_OFFICER,
            department=CONSUMER,
            person="P-9",
            digest=digest_of(token),
            by="root",
            at=NOW,
        )
    assert whoami(home, token).id == "wang.hr"


@pytest.mark.parametrize(
    ("roles", "together"),
    [
        ((Role.CATALOGUE_EDITOR, Role.SHARING_OFFICE_HEAD), True),
        ((Role.SECURITY_OFFICER, Role.CATALOGUE_EDITOR), True),
        ((Role.SECURITY_OFFICER, Role.SHARING_OFFICE_HEAD), False),
        ((Role.SHARING_OFFICE_HEAD, Role.SHARING_OFFICE_HEAD), False),
        ((Role.DATA_AUTHORITY, Role.SHARING_OFFICE_HEAD), False),
        ((Role.DATA_AUTHORITY, Role.OPERATOR), False),
        ((Role.DATA_AUTHORITY, Role.DATA_AUTHORITY), False),
        ((Role.AUDITOR, Role.CATALOGUE_EDITOR), False),
    ],
)
def test_one_person_holds_the_pairs_of_roles_that_are_listed(
    home: Home, roles: tuple[Role, Role], together: bool
) -> None:
    place = ["" if role in POOL_ROLES else CONSUMER for role in roles]
    add(home, "first", roles[0], place[0], person="ga-17")
    if together:
        add(home, "second", roles[1], place[1], person=" GA-17")
        return
    with pytest.raises(RefusedError) as error:
        add(home, "second", roles[1], place[1], person="GA-17")
    assert error.value.reason is Reason.ROLE_FORBIDDEN
    with home.db.begin() as work:
        Users(home.store).revoke(work, "first", NOW)
    add(home, "second", roles[1], place[1], person="GA-17")


def test_a_person_belongs_to_one_department(home: Home) -> None:
    add(home, "first", Role.CATALOGUE_EDITOR, CONSUMER, person="17")
    with pytest.raises(RefusedError):
        add(home, "second", Role.SHARING_OFFICE_HEAD, PROVIDER, person="17")


@pytest.mark.parametrize(
    "text", ["", " ", "11010519491231002X", "110105-19491231-002x", "110105491231002", "13812345678", "张三", "a" * 33]
)
def test_a_staff_number_is_no_identity_number(home: Home, text: str) -> None:
    with pytest.raises(InvalidError) as error:
        staff_number(text)
    assert error.value.reason is Reason.NAME_INVALID
    assert not text.strip() or text.strip() not in error.value.message


def test_persons_are_those_of_the_accounts_and_the_person_of_an_old_account_is_set_once(home: Home) -> None:
    add(home, "wang.hr", person="hr-1")
    old = Account(
        name="old",
        role=Role.CATALOGUE_EDITOR,
        department=CONSUMER,
        digest=b"o" * 32,
        created_by="root",
        created_at=NOW,
        person="",
        expires_at=NOW + DAY,
    )
    users = Users(home.store)
    with home.db.begin() as work:
        home.store.add_account(work, old)
        assert users.persons(work, ["wang.hr", "old", "nobody"]) == {"wang.hr": "HR-1"}
        users.set_person(work, "old", "hr-1")
        assert users.persons(work, ["old"]) == {"old": "HR-1"}
    with pytest.raises(InvalidError), home.db.begin() as work:
        users.set_person(work, "old", "hr-2")


def test_the_last_use_of_an_account_only_rises(home: Home) -> None:
    add(home, "wang.hr")
    with home.db.begin() as work:
        assert home.store.last_uses(work) == {}
        for at in (NOW, NOW + DAY, NOW + SECOND):
            home.store.record_use(work, "wang.hr", at)
        assert home.store.last_uses(work) == {"wang.hr": NOW + DAY}


def test_the_last_use_is_stored_once_a_minute_at_most(home: Home) -> None:
    written: list[datetime] = []
    store: Any = SimpleNamespace(record_use=lambda _work, _name, at: written.append(at))
    last_use = LastUse(home.db, store)
    for second in range(150):
        last_use.record("wang.hr", NOW + second * SECOND)
    assert written == [NOW, NOW + 60 * SECOND, NOW + 120 * SECOND]


@pytest.mark.parametrize(
    ("name", "role", "department"),
    [
        ("", Role.AUDITOR, ""),
        ("Wang", Role.AUDITOR, ""),
        ("a b", Role.AUDITOR, ""),
        ("x" * 65, Role.AUDITOR, ""),
        ("machine", Role.CONNECTOR, CONSUMER),
        ("first", Role.BOOTSTRAP, ""),
        ("auditor", Role.AUDITOR, CONSUMER),
        ("operator", Role.OPERATOR, CONSUMER),
        ("authority", Role.DATA_AUTHORITY, CONSUMER),
        ("head", Role.SHARING_OFFICE_HEAD, ""),
        ("editor", Role.CATALOGUE_EDITOR, ""),
        ("officer", Role.SECURITY_OFFICER, ""),
    ],
)
def test_an_account_that_does_not_hang_together_is_refused(home: Home, name: str, role: Role, department: str) -> None:
    with pytest.raises(PoolError) as error:
        add(home, name, role, department)
    assert error.value.reason in {Reason.NAME_INVALID, Reason.REQUEST_INVALID}
    with home.db.begin() as work:
        assert not Users(home.store).all(work)


@pytest.mark.postgres
def test_no_secret_is_in_the_database(engine: sa.Engine, tmp_path: Path) -> None:
    metadata.create_all(engine)
    authority = Authority.create(tmp_path / "authority", "city-pool", NOW)
    home = Home(PostgresIdentityStore(row_tags()), PostgresDatabase(engine), authority)
    secrets = [home.invite(), add(home, "wang.hr")]
    with engine.begin() as connection:
        for table in metadata.sorted_tables:
            for row in connection.execute(sa.select(table)):
                stored = " ".join(
                    value.hex() + repr(bytes(value)) if isinstance(value, bytes | memoryview) else str(value)
                    for value in row
                )
                assert not [secret for secret in secrets if secret in stored or secret.encode().hex() in stored]
