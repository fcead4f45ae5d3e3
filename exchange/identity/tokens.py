"""Bearer tokens and the accounts of people: added, authenticated, renewed, revoked.

A token is 256 random bits, shown once and stored as SHA-256. A call has the rights of the account as it is at that
moment: revoking the account, or giving it another token, takes effect with the next call (with a look-up of a schema by
id within half a second, see `exchange.api.registry_identification`). Accounts of the pool itself
(data authority, operator, auditor) belong to no department; all others belong to one. An account has one role.
"""

import hashlib
import re
import secrets
from collections.abc import Sequence
from datetime import datetime

from exchange.identity.store import Account, IdentityStore
from registry.database.unit_of_work import Reader, UnitOfWork
from schemas.access import Actor, ActorKind, Role
from schemas.errors import InvalidError, Reason, RefusedError

__all__ = ["Users"]

_PREFIX = "pool_"  # so that scanners for leaked secrets recognise it
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
_OF_THE_POOL = frozenset({Role.DATA_AUTHORITY, Role.OPERATOR, Role.AUDITOR})


class Users:
    """Adds, authenticates and revokes accounts."""

    def __init__(self, store: IdentityStore) -> None:
        self._store = store

    def add(self, work: UnitOfWork, *, name: str, role: Role, department: str, by: str, at: datetime) -> str:
        """Add an account and return its token, which cannot be shown again.

        Args:
            work: the open transaction.
            name: lower-case, never reused; a staff pseudonym.
            role: one; never CONNECTOR, as programs are enrolled.
            department: internal id; empty for the pool's own roles.
            by: name of the account that adds it.
            at: aware.

        Raises:
            InvalidError: NAME_INVALID; REQUEST_INVALID, a role and a department that do not go together.
            ConflictError: ALREADY_EXISTS.
        """
        if not _NAME.fullmatch(name):
            raise InvalidError(
                Reason.NAME_INVALID,
                "got an account name of another form; expected a-z, 0-9, '.', '_' and '-', 64 characters at most",
            )
        if role is Role.CONNECTOR:
            raise InvalidError(Reason.REQUEST_INVALID, "a connector has no account; invite its department instead")
        if (role in _OF_THE_POOL) is bool(department):
            expected = "no department" if role in _OF_THE_POOL else "a department"
            raise InvalidError(Reason.REQUEST_INVALID, f"an account with the role {role} has {expected}")
        token = _new_token()
        self._store.add_account(
            work,
            Account(name=name, role=role, department=department, digest=_digest(token), created_by=by, created_at=at),
        )
        return token

    def authenticate(self, reader: Reader, token: str) -> Actor:
        """Return the actor to whom a token belongs.

        Raises:
            RefusedError: TOKEN_INVALID; CERTIFICATE_REVOKED, for a revoked account.
        """
        account = self._store.account_of(reader, _digest(token))
        if account is None:
            raise RefusedError(Reason.TOKEN_INVALID, "the bearer token belongs to no account; ask for an account")
        if account.revoked_at is not None:
            raise RefusedError(Reason.CERTIFICATE_REVOKED, "the account has been revoked")
        return Actor(kind=ActorKind.HUMAN, id=account.name, department=account.department, role=account.role)

    def renew(self, work: UnitOfWork, name: str) -> str:
        """Give an account another token and return it; the old one ends.

        Raises:
            InvalidError: NOT_FOUND, no such account, or a revoked one.
        """
        self._existing(work, name)
        token = _new_token()
        self._store.change_account(work, name, digest=_digest(token), revoked_at=None)
        return token

    def revoke(self, work: UnitOfWork, name: str, at: datetime) -> None:
        """Revoke an account permanently; its name is not used again.

        Raises:
            InvalidError: NOT_FOUND, no such account, or one that is revoked already.
        """
        self._existing(work, name)
        self._store.change_account(work, name, digest=None, revoked_at=at)

    def all(self, reader: Reader) -> Sequence[Account]:
        """Return all accounts, revoked ones too."""
        return self._store.accounts(reader)

    def _existing(self, reader: Reader, name: str) -> Account:
        account = self._store.account(reader, name)
        if account is None or account.revoked_at is not None:
            raise InvalidError(Reason.NOT_FOUND, f"there is no account {name[:64]!r} in use; list them first")
        return account


def _new_token() -> str:
    return _PREFIX + secrets.token_urlsafe(32)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
