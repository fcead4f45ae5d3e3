"""What accounts and their tokens keep true, on the memory twin and on PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from exchange.identity.authority import Authority
from exchange.identity.postgres import PostgresIdentityStore, metadata
from exchange.identity.store import (
    MemoryIdentityStore,
)
from exchange.identity.tokens import Users
from registry.database.unit_of_work import MemoryDatabase, PostgresDatabase
from schemas.access import Actor, ActorKind, Role
from schemas.errors import ConflictError, InvalidError, PoolError, Reason, RefusedError
from tests.kit.cases.grants import CONSUMER, NOW
from tests.kit.cases.identity import DAY, Home
from tests.kit.row_tags import row_tags


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


def add(home: Home, name: str, role: Role = Role.SHARING_OFFICE_HEAD, department: str = CONSUMER) -> str:
    with home.db.begin() as work:
        return Users(home.store).add(work, name=name, role=role, department=department, by="root", at=NOW)


def whoami(home: Home, token: str) -> Actor:
    with home.db.begin() as work:
        return Users(home.store).authenticate(work, token)


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
    for act in (lambda work: users.renew(work, "wang.hr"), lambda work: users.revoke(work, "wang.hr", NOW)):
        with pytest.raises(InvalidError), home.db.begin() as work:
            act(work)


def test_a_new_token_ends_the_old_one(home: Home) -> None:
    old = add(home, "wang.hr")
    with home.db.begin() as work:
        new = Users(home.store).renew(work, "wang.hr")
    assert whoami(home, new).id == "wang.hr"
    with pytest.raises(RefusedError):
        whoami(home, old)


@pytest.mark.parametrize(
    ("name", "role", "department"),
    [
        ("", Role.AUDITOR, ""),
        ("Wang", Role.AUDITOR, ""),
        ("a b", Role.AUDITOR, ""),
        ("x" * 65, Role.AUDITOR, ""),
        ("machine", Role.CONNECTOR, CONSUMER),
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
