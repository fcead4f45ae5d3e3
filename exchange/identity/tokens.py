"""Bearer tokens and the accounts of people: added, authenticated, rotated, revoked.

A token is 256 random bits. Its holder makes it (`new_token`, `pool user token`) and tells the pool its fingerprint
alone, which is SHA-256 of it: nobody else ever has the token, neither who proposes the account nor who confirms it, and
the pool never shows one. A call has the rights of the account as it is at that moment: revoking the account, or giving
it another token, takes effect with the next call (with a look-up of a schema by id within half a second, see
`exchange.api.registry.identification`). A token is valid for 90 days at most; the holder rotates it before.

What an account may be is in `exchange.identity.account_rules`; who may make one, in `exchange.control.accounts`.
"""

import hashlib
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from exchange.identity.account_rules import LONGEST_TOKEN, check_account, check_person, staff_number
from exchange.identity.store import Account, IdentityStore
from registry.database.unit_of_work import Reader, UnitOfWork
from schemas.access import Actor, ActorKind, Role
from schemas.errors import InvalidError, Reason, RefusedError

__all__ = ["BOOTSTRAP", "Users", "digest_of", "fingerprint_of", "new_token", "parse_fingerprint"]

BOOTSTRAP: Final = "bootstrap"
_PREFIX = "pool_"  # so that scanners for leaked secrets recognise it
_FINGERPRINT = re.compile(r"sha256:([0-9a-f]{64})")


class Users:
    """Adds, authenticates, rotates and revokes accounts.

    Args:
        store: of accounts.
        lifetime: of a token; more than 90 days count as 90.
    """

    def __init__(self, store: IdentityStore, *, lifetime: timedelta = LONGEST_TOKEN) -> None:
        self._store = store
        self._lifetime = min(lifetime, LONGEST_TOKEN)

    def add(
        self,
        work: UnitOfWork,
        *,
        name: str,
        role: Role,
        department: str,
        person: str,
        digest: bytes,
        by: str,
        at: datetime,
    ) -> Account:
        """Add an account.

        Args:
            work: the open transaction.
            name: lower-case, never reused; a staff pseudonym.
            role: one; never CONNECTOR, as programs are enrolled.
            department: internal id; empty for the pool's own roles.
            person: staff number (工号).
            digest: SHA-256 of the token, 32 bytes (`parse_fingerprint`).
            by: names of the accounts that add it.
            at: aware.

        Raises:
            InvalidError: NAME_INVALID; REQUEST_INVALID, a role and a department that do not go together.
            RefusedError: ROLE_FORBIDDEN, the person holds another account that does not go with it.
            ConflictError: ALREADY_EXISTS, the name has been used before, or the token is another account's.
        """
        self._store.lock_person(work, staff_number(person))
        account = self.check(work, name=name, role=role, department=department, person=person, by=by, at=at)
        account = replace(account, digest=digest)
        self._store.add_account(work, account)
        return account

    def check(
        self, reader: Reader, *, name: str, role: Role, department: str, person: str, by: str, at: datetime
    ) -> Account:
        """Return the account that `add` would add, without its token; raise what `add` raises of it."""
        check_account(name, role, department)
        number = staff_number(person)
        check_person(number, role, department, self._store.accounts(reader))
        return Account(
            name=name,
            role=role,
            department=department,
            digest=b"",
            created_by=by,
            created_at=at,
            person=number,
            expires_at=at + self._lifetime,
        )

    def add_bootstrap(self, work: UnitOfWork, digest: bytes, at: datetime) -> None:
        """Add the account of `pool init`, which adds the first two data authorities and is no person's."""
        self._store.add_account(
            work,
            Account(
                name=BOOTSTRAP,
                role=Role.BOOTSTRAP,
                department="",
                digest=digest,
                created_by="init",
                created_at=at,
                person="",
                expires_at=at + self._lifetime,
            ),
        )

    def authenticate(self, reader: Reader, token: str, at: datetime) -> Actor:
        """Return the actor to whom a token belongs.

        Raises:
            RefusedError: TOKEN_INVALID; CERTIFICATE_REVOKED, for a revoked account; TOKEN_EXPIRED.
        """
        account = self._store.account_of(reader, digest_of(token))
        if account is None:
            raise RefusedError(Reason.TOKEN_INVALID, "the bearer token belongs to no account; ask for an account")
        if account.revoked_at is not None:
            raise RefusedError(Reason.CERTIFICATE_REVOKED, "the account has been revoked")
        if at >= account.expires_at:
            raise RefusedError(
                Reason.TOKEN_EXPIRED,
                f"the token ended at {account.expires_at.isoformat()}; two others give the account another one",
            )
        return Actor(kind=ActorKind.HUMAN, id=account.name, department=account.department, role=account.role)

    def rotate(self, work: UnitOfWork, name: str, digest: bytes, at: datetime) -> Account:
        """Rotate the token of an account; the old one ends with the transaction.

        Raises:
            InvalidError: NOT_FOUND, no such account, or a revoked one.
            ConflictError: ALREADY_EXISTS, the token is another account's, or its own of now.
        """
        account = replace(self.in_use(work, name), digest=digest, expires_at=at + self._lifetime)
        self._store.change_account(work, account)
        return account

    def revoke(self, work: UnitOfWork, name: str, at: datetime) -> Account:
        """Revoke an account permanently, also one whose row the pool did not write; its name is not used again.

        Raises:
            InvalidError: NOT_FOUND, no such account, or one that is revoked already.
        """
        account = replace(self.revocable(work, name), revoked_at=at)
        self._store.revoke_account(work, name, at)
        return account

    def revocable(self, reader: Reader, name: str) -> Account:
        """Return an account that can be revoked: one in use, or one whose row the pool did not write.

        Raises:
            InvalidError: NOT_FOUND.
        """
        return _in_use(self._store.revocable(reader, name), name)

    def set_person(self, work: UnitOfWork, name: str, person: str) -> Account:
        """Set the person of an account of an earlier version, once.

        Raises:
            InvalidError: NOT_FOUND; NAME_INVALID; REQUEST_INVALID, the account names a person already.
            RefusedError: ROLE_FORBIDDEN, the person holds another account that does not go with it.
        """
        account = self.in_use(work, name)
        if account.person:
            raise InvalidError(
                Reason.REQUEST_INVALID, f"the account {name!r} names its person already, and that never changes"
            )
        number = staff_number(person)
        self._store.lock_person(work, number)
        check_person(number, account.role, account.department, self._store.accounts(work))
        account = replace(account, person=number)
        self._store.change_account(work, account)
        return account

    def all(self, reader: Reader) -> Sequence[Account]:
        """Return all accounts, revoked ones too."""
        return self._store.accounts(reader)

    def persons(self, reader: Reader, accounts: Collection[str]) -> Mapping[str, str]:
        """Return the staff number of each account that names one, by account name; revoked accounts too."""
        found = self._store.accounts_by_name(reader, accounts)
        return {name: account.person for name, account in found.items() if account.person}

    def in_use(self, reader: Reader, name: str) -> Account:
        """Return an account that is not revoked.

        Raises:
            InvalidError: NOT_FOUND.
        """
        return _in_use(self._store.account(reader, name), name)


def _in_use(account: Account | None, name: str) -> Account:
    if account is None or account.revoked_at is not None:
        raise InvalidError(Reason.NOT_FOUND, f"there is no account {name[:64]!r} in use; list them first")
    return account


def new_token() -> str:
    """Return a new token."""
    return _PREFIX + secrets.token_urlsafe(32)


def digest_of(token: str) -> bytes:
    """Return the SHA-256 of a token, 32 bytes."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def fingerprint_of(token: str) -> str:
    """Return the fingerprint of a token, `sha256:` and 64 hexadecimal digits: no secret, as the token is random."""
    return f"sha256:{digest_of(token).hex()}"


def parse_fingerprint(text: str) -> bytes:
    """Return the digest that a fingerprint names, 32 bytes.

    Raises:
        InvalidError: REQUEST_INVALID.
    """
    match = _FINGERPRINT.fullmatch(text.strip())
    if match is None:
        raise InvalidError(
            Reason.REQUEST_INVALID,
            "got no fingerprint of a token; expected 'sha256:' and 64 hexadecimal digits, as the account's holder gets "
            "them from `pool user token`",
        )
    return bytes.fromhex(match[1])
