"""Identity store: the port for invitations, certificates, signing keys and accounts, and its in-memory adapter.

What every adapter keeps true:

* **No secret is stored.** An invitation's secret and an account's token are stored as SHA-256 alone. They are 256
  random bits, so a slow hash, which passwords need, would add nothing.
* **One issue or revocation at a time in a department** (`lock_department`). Two machines with one invitation do not
  both enrol, and no certificate that is being issued escapes a revocation that does not see it yet.
* **Names are never reused.** A revoked account keeps its name, since grants name who requested and who approved
  them, and the two must stay two persons.
* **Public signing keys are never deleted**, each with the time in which it was the connector's: a batch signed years
  ago can still be checked. A connector has one key at a time.

The stores never begin or commit; they join a `UnitOfWork`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol, TypeVar

from typing_extensions import override

from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import MemoryUnitOfWork, Reader, UnitOfWork
from schemas.access import Role
from schemas.errors import ConflictError, Reason

__all__ = [
    "Account",
    "Certificate",
    "IdentityStore",
    "MemoryIdentityStore",
    "OneTimeToken",
    "SigningKey",
    "account_exists",
    "token_exists",
]

_K = TypeVar("_K")
_V = TypeVar("_V")


@dataclass(frozen=True, slots=True, kw_only=True)
class OneTimeToken:
    """An invitation as stored.

    Attributes:
        digest: SHA-256 of the secret, 32 bytes.
        department: internal id of the department that may enrol a connector with it.
        connector: the one name that it is for; None = any name that the department has not used yet.
        invited_by: names of the accounts that proposed and confirmed it, with `+` between them.
        created_at, expires_at: aware.
        used_at: when it was used or withdrawn; None before.
    """

    digest: bytes
    department: str
    connector: str | None
    invited_by: str
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A client certificate that was issued. `serial` is lower-case hexadecimal, times are aware."""

    serial: str
    department: str
    connector: str
    not_before: datetime
    not_after: datetime
    revoked_at: datetime | None = None
    revoked_by: str = ""
    revoked_because: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A connector's public Ed25519 key (32 bytes), its own from `since` until `until` (None = still)."""

    department: str
    connector: str
    public_key: bytes
    since: datetime
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A person's account.

    Attributes:
        name: never reused; a staff pseudonym, not a person's name.
        role: one.
        department: internal id; empty for accounts of the pool itself.
        digest: SHA-256 of the bearer token, 32 bytes.
        created_by: names of the accounts that made it.
        created_at: aware.
        revoked_at: None while it may be used.
        person: staff number (工号) of its person; empty for an account of an earlier version, and never changed once
            it is set.
        expires_at: when its token ends.
    """

    name: str
    role: Role
    department: str
    digest: bytes
    created_by: str
    created_at: datetime
    revoked_at: datetime | None = None
    person: str
    expires_at: datetime


class IdentityStore(Protocol):
    """Stores invitations, certificates, signing keys and accounts. Every call joins the transaction given to it."""

    def add_invitation(self, work: UnitOfWork, token: OneTimeToken) -> None:
        """Store a new invitation."""
        ...

    def invitation(self, reader: Reader, digest: bytes) -> OneTimeToken | None:
        """Return an invitation by its secret's digest; None = there is none."""
        ...

    def use_invitation(self, work: UnitOfWork, digest: bytes, at: datetime) -> bool:
        """Mark an invitation as used; return False where it was used or withdrawn already."""
        ...

    def withdraw_invitations(self, work: UnitOfWork, *, department: str, connector: str | None, at: datetime) -> None:
        """Mark a department's unused invitations as used: all, or those that name the connector."""
        ...

    def withdraw_invitations_of(self, work: UnitOfWork, account: str, at: datetime) -> int:
        """Mark the unused invitations that an account proposed or confirmed as used; return their number."""
        ...

    def lock_person(self, work: UnitOfWork, person: str) -> None:
        """Make every other account of the person wait until the transaction ends, whatever its department is."""
        ...

    def lock_department(self, work: UnitOfWork, department: str) -> None:
        """Make every other issue or revocation in the department wait until the transaction ends.

        What is read afterwards includes what the one before has written.
        """
        ...

    def add_certificate(self, work: UnitOfWork, certificate: Certificate) -> None:
        """Store a certificate that is about to be handed out."""
        ...

    def certificate(self, reader: Reader, serial: str) -> Certificate | None:
        """Return a certificate; None = the pool never issued it."""
        ...

    def certificates_by_serial(self, reader: Reader, serials: Collection[str]) -> Mapping[str, Certificate]:
        """Return those of these certificates that the pool issued; a row that it did not write is left out."""
        ...

    def lock_certificate(self, work: UnitOfWork, serial: str) -> Certificate | None:
        """Return a certificate and keep it as it is until the transaction ends (a shared lock)."""
        ...

    def certificates(self, reader: Reader, department: str, connector: str | None = None) -> Sequence[Certificate]:
        """Return a department's certificates, oldest first."""
        ...

    def certificates_page(
        self, reader: Reader, *, department: str | None, after: tuple[str, str, str], limit: int
    ) -> Sequence[Certificate | DamagedRow]:
        """Return certificates, of a department or of all, in the order of department, connector and serial.

        Those after *after*; fewer than *limit* only at the end. A row that the pool did not write is only named.
        """
        ...

    def revoke_certificates(
        self,
        work: UnitOfWork,
        *,
        department: str,
        connector: str | None = None,
        serial: str | None = None,
        at: datetime,
        by: str,
        because: str,
    ) -> Sequence[str]:
        """Revoke a department's certificates, or those of one connector, or one; return the serials newly revoked."""
        ...

    def set_signing_key(self, work: UnitOfWork, key: SigningKey) -> None:
        """Make a key the connector's from `key.since` on; the one before it, if any, ends then."""
        ...

    def signing_keys(self, reader: Reader, department: str, connector: str) -> Sequence[SigningKey]:
        """Return a connector's public keys, oldest first."""
        ...

    def add_account(self, work: UnitOfWork, account: Account) -> None:
        """Store a new account.

        Raises:
            ConflictError: ALREADY_EXISTS, the name has been used before, or the token is another account's.
        """
        ...

    def account(self, reader: Reader, name: str) -> Account | None:
        """Return an account by its name."""
        ...

    def accounts_by_name(self, reader: Reader, names: Collection[str]) -> Mapping[str, Account]:
        """Return those of these accounts that there are, revoked ones too, in one query.

        Raises:
            CorruptError: ROW_FORGED, one of them is not as the pool wrote it.
        """
        ...

    def revocable(self, reader: Reader, name: str) -> Account | None:
        """Return an account to revoke it: as `account`, but also one that the pool did not write, as if it were in use.

        A row that is damaged for the moment of a revocation, and repaired afterwards, would escape it.
        """
        ...

    def revoke_account(self, work: UnitOfWork, name: str, at: datetime) -> None:
        """Store that an account has ended, be it one that the pool did not write."""
        ...

    def account_of(self, reader: Reader, digest: bytes) -> Account | None:
        """Return the account to which a token's digest belongs."""
        ...

    def accounts(self, reader: Reader) -> Sequence[Account]:
        """Return all accounts, revoked ones too, in the order of their names."""
        ...

    def accounts_page(
        self, reader: Reader, *, department: str | None, after: str, limit: int
    ) -> Sequence[Account | DamagedRow]:
        """Return accounts, of a department or all, in the order of their names; fewer than *limit* only at the end.

        A row that the pool did not write is only named.
        """
        ...

    def change_account(self, work: UnitOfWork, account: Account) -> None:
        """Store an account in place of the one of its name; name, role and department are as they were.

        Raises:
            ConflictError: ALREADY_EXISTS, the token is another account's.
        """
        ...

    def record_use(self, work: UnitOfWork, name: str, at: datetime) -> None:
        """Store when an account was last used; an earlier time than the stored one changes nothing."""
        ...

    def last_uses(self, reader: Reader) -> Mapping[str, datetime]:
        """Return when each account was last used, by account name; those never used are left out."""
        ...


@dataclass
class _Tables:
    invitations: dict[bytes, OneTimeToken] = field(default_factory=dict)
    certificates: dict[str, Certificate] = field(default_factory=dict)
    keys: dict[tuple[str, str], tuple[SigningKey, ...]] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)
    uses: dict[str, datetime] = field(default_factory=dict)


class MemoryIdentityStore(IdentityStore):
    """The in-memory adapter: dictionaries. `MemoryDatabase` runs one transaction at a time, so locks do nothing."""

    def __init__(self) -> None:
        self._tables = _Tables()

    @override
    def add_invitation(self, work: UnitOfWork, token: OneTimeToken) -> None:
        self._set(work, self._tables.invitations, token.digest, token)

    @override
    def invitation(self, reader: Reader, digest: bytes) -> OneTimeToken | None:
        del reader
        return self._tables.invitations.get(digest)

    @override
    def use_invitation(self, work: UnitOfWork, digest: bytes, at: datetime) -> bool:
        token = self._tables.invitations[digest]
        if token.used_at is not None:
            return False
        self._set(work, self._tables.invitations, digest, replace(token, used_at=at))
        return True

    @override
    def withdraw_invitations(self, work: UnitOfWork, *, department: str, connector: str | None, at: datetime) -> None:
        for token in list(self._tables.invitations.values()):
            if token.department == department and token.used_at is None and connector in {None, token.connector}:
                self.use_invitation(work, token.digest, at)

    @override
    def withdraw_invitations_of(self, work: UnitOfWork, account: str, at: datetime) -> int:
        unused = [one for one in self._tables.invitations.values() if one.used_at is None]
        return sum(self.use_invitation(work, one.digest, at) for one in unused if account in one.invited_by.split("+"))

    @override
    def lock_person(self, work: UnitOfWork, person: str) -> None: ...

    @override
    def lock_department(self, work: UnitOfWork, department: str) -> None: ...

    @override
    def add_certificate(self, work: UnitOfWork, certificate: Certificate) -> None:
        self._set(work, self._tables.certificates, certificate.serial, certificate)

    @override
    def certificate(self, reader: Reader, serial: str) -> Certificate | None:
        del reader
        return self._tables.certificates.get(serial)

    @override
    def certificates_by_serial(self, reader: Reader, serials: Collection[str]) -> Mapping[str, Certificate]:
        del reader
        certificates = self._tables.certificates
        return {serial: certificates[serial] for serial in serials if serial in certificates}

    @override
    def lock_certificate(self, work: UnitOfWork, serial: str) -> Certificate | None:
        del work  # one transaction at a time: everything is locked
        return self._tables.certificates.get(serial)

    def all_certificates(self) -> Sequence[Certificate]:
        """Return all certificates, for the adapter of lists."""
        return [*self._tables.certificates.values()]

    def all_invitations(self) -> Sequence[OneTimeToken]:
        """Return all invitations, for the adapter of lists."""
        return [*self._tables.invitations.values()]

    @override
    def certificates(self, reader: Reader, department: str, connector: str | None = None) -> Sequence[Certificate]:
        del reader
        found = (c for c in self._tables.certificates.values() if c.department == department)
        return sorted((c for c in found if connector in {None, c.connector}), key=lambda c: (c.not_before, c.serial))

    @override
    def certificates_page(
        self, reader: Reader, *, department: str | None, after: tuple[str, str, str], limit: int
    ) -> Sequence[Certificate | DamagedRow]:
        del reader
        keyed = {(one.department, one.connector, one.serial): one for one in self._tables.certificates.values()}
        return [keyed[key] for key in sorted(keyed) if key > after and department in {None, key[0]}][:limit]

    @override
    def revoke_certificates(
        self,
        work: UnitOfWork,
        *,
        department: str,
        connector: str | None = None,
        serial: str | None = None,
        at: datetime,
        by: str,
        because: str,
    ) -> Sequence[str]:
        revoked = []
        for certificate in self.certificates(work, department, connector):
            if certificate.revoked_at is None and serial in {None, certificate.serial}:
                changed = replace(certificate, revoked_at=at, revoked_by=by, revoked_because=because)
                self._set(work, self._tables.certificates, certificate.serial, changed)
                revoked.append(certificate.serial)
        return revoked

    @override
    def set_signing_key(self, work: UnitOfWork, key: SigningKey) -> None:
        name = (key.department, key.connector)
        ended = tuple(
            replace(earlier, until=key.since) if earlier.until is None else earlier
            for earlier in self._tables.keys.get(name, ())
        )
        self._set(work, self._tables.keys, name, (*ended, key))

    @override
    def signing_keys(self, reader: Reader, department: str, connector: str) -> Sequence[SigningKey]:
        del reader
        return self._tables.keys.get((department, connector), ())

    @override
    def add_account(self, work: UnitOfWork, account: Account) -> None:
        if account.name in self._tables.accounts:
            raise account_exists(account.name)
        self._check_token(account)
        self._set(work, self._tables.accounts, account.name, account)

    @override
    def account(self, reader: Reader, name: str) -> Account | None:
        del reader
        return self._tables.accounts.get(name)

    @override
    def accounts_by_name(self, reader: Reader, names: Collection[str]) -> Mapping[str, Account]:
        del reader
        accounts = self._tables.accounts
        return {name: accounts[name] for name in names if name in accounts}

    @override
    def revocable(self, reader: Reader, name: str) -> Account | None:
        return self.account(reader, name)

    @override
    def revoke_account(self, work: UnitOfWork, name: str, at: datetime) -> None:
        account = self._tables.accounts[name]
        self._set(work, self._tables.accounts, name, replace(account, revoked_at=at))

    @override
    def account_of(self, reader: Reader, digest: bytes) -> Account | None:
        del reader
        return next((a for a in self._tables.accounts.values() if a.digest == digest), None)

    @override
    def accounts(self, reader: Reader) -> Sequence[Account]:
        del reader
        return [self._tables.accounts[name] for name in sorted(self._tables.accounts)]

    @override
    def accounts_page(
        self, reader: Reader, *, department: str | None, after: str, limit: int
    ) -> Sequence[Account | DamagedRow]:
        return [a for a in self.accounts(reader) if a.name > after and department in {None, a.department}][:limit]

    @override
    def change_account(self, work: UnitOfWork, account: Account) -> None:
        self._check_token(account)
        self._set(work, self._tables.accounts, account.name, account)

    @override
    def record_use(self, work: UnitOfWork, name: str, at: datetime) -> None:
        before = self._tables.uses.get(name)
        if before is None or before < at:
            self._set(work, self._tables.uses, name, at)

    @override
    def last_uses(self, reader: Reader) -> Mapping[str, datetime]:
        del reader
        return dict(self._tables.uses)

    def _check_token(self, account: Account) -> None:
        for other in self._tables.accounts.values():
            if other.digest == account.digest and other.name != account.name:
                raise token_exists()

    @staticmethod
    def _set(work: UnitOfWork, table: dict[_K, _V], key: _K, value: _V) -> None:
        before = table.get(key)
        table[key] = value
        if isinstance(work, MemoryUnitOfWork):
            work.on_rollback(lambda: _restore(table, key, before))


def _restore(table: dict[_K, _V], key: _K, before: _V | None) -> None:
    if before is None:
        del table[key]
    else:
        table[key] = before


def account_exists(name: str) -> ConflictError:
    """Return the error of a name that has been used before."""
    return ConflictError(
        Reason.ALREADY_EXISTS, f"the account name {name!r} has been used before; names are never reused, take another"
    )


def token_exists() -> ConflictError:
    """Return the error of a token that is another account's."""
    return ConflictError(
        Reason.ALREADY_EXISTS, "the token is another account's; its holder makes another one with `pool user token`"
    )
