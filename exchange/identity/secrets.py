"""Secret keys of the pool behind one port; the first adapter is a folder of files, mode 0600.

    K_topic   per resource; decides a record's pseudonym and so its partition, its order and its compaction. Never
              rotated: with another key the same person would have another pseudonym.
    K_audit   per epoch (a month); seals the pseudonyms of a batch's keys that are stored beside its receipt
              (`exchange.identity.audit_pseudonyms`). They become meaningless once the epoch's key is destroyed, after
              the retention time (`exchange.control.audit_keys`). The gateway that stores the first batch of a month
              draws it.
    K_grant   per grant; record keys that are stable within a grant and mean nothing across two.
    named     further keys, by purpose, such as the seal of grants.

K_topic, K_grant and the named keys are derived from one master each (HKDF-SHA256, RFC 5869), so that every
gateway that holds the same three files computes the same keys, on any host, and a backup is three files. A key
made on first use by one of two hosts would send one person to two partitions. K_audit is not derived but drawn at
random, for what can be derived again cannot be destroyed.

A process reads the keys of its roles alone (`SecretsOfRole`, `RoleSecrets`). A host of a role that needs a few named
keys holds these and no master: `FileSecrets.export` writes them to `named/<name>.key`, with a dot for each slash.

A lost key is not made again: `FileSecrets.open` refuses a folder in which a master is missing, and no epoch that is
over gets another key.
"""

import os
import re
import threading
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from typing_extensions import override

from exchange.identity.keyfile import create_private, destroy_private, private_folder, read_private
from exchange.identity.secrets_of_role import SecretsOfRole
from schemas.errors import InvalidError, Reason
from schemas.names import ResourceName

__all__ = ["FileSecrets", "MemorySecrets", "RoleSecrets", "Secrets", "SecretsOfRole"]

_KEY_SIZE = 32  # bytes
_EPOCH = re.compile(r"[0-9]{4}-(?:0[1-9]|1[0-2])")
_MASTERS = ("topic", "grant", "named")


class Secrets(Protocol):
    """Source of keys of 32 bytes. Thread-safe."""

    def topic_key(self, resource: ResourceName) -> bytes:
        """Return K_topic of a resource: the same for all majors, since a new schema does not change pseudonyms."""
        ...

    def grant_key(self, grant_id: str) -> bytes:
        """Return K_grant of a grant: the same for all its versions."""
        ...

    def named_key(self, name: str) -> bytes:
        """Return the pool's key for one purpose, such as `grant-seal`."""
        ...

    def audit_key(self, epoch: str) -> bytes:
        """Return K_audit of an epoch, `YYYY-MM`.

        Raises:
            InvalidError: REQUEST_INVALID, for another form; CONFIG_INVALID, it was never drawn, lost or destroyed.
        """
        ...

    def draw_audit_key(self, epoch: str) -> bytes:
        """Draw K_audit of an epoch that begins, unless another gateway on this folder has; return it.

        Raises:
            InvalidError: REQUEST_INVALID, for another form, or where a later epoch has a key: what was destroyed or
                lost is not drawn again.
        """
        ...

    def audit_epochs(self) -> list[str]:
        """Return the epochs that have a key here, oldest first."""
        ...

    def destroy_audit_key(self, epoch: str) -> None:
        """Destroy K_audit of an epoch, which may have none. The file is overwritten; its copies are not known here.

        Raises:
            InvalidError: REQUEST_INVALID, for another form.
            UnavailableError: DISK_FULL, the file system refuses.
        """
        ...


class RoleSecrets(Secrets):
    """Keys of one process: those of its roles, and no others.

    Args:
        secrets: all that the folder has.
        allowed: what the roles read.
        roles: for the error.

    Every method raises InvalidError: CONFIG_INVALID for a key of another role.
    """

    def __init__(self, secrets: Secrets, allowed: SecretsOfRole, roles: str) -> None:
        self._secrets = secrets
        self._allowed = allowed
        self._roles = roles

    @override
    def topic_key(self, resource: ResourceName) -> bytes:
        self._check("the key of pseudonyms", allowed=self._allowed.topic)
        return self._secrets.topic_key(resource)

    @override
    def grant_key(self, grant_id: str) -> bytes:
        self._check("the key of grants", allowed=self._allowed.grant)
        return self._secrets.grant_key(grant_id)

    @override
    def named_key(self, name: str) -> bytes:
        self._check(f"the key {name}", allowed=name in self._allowed.named)
        return self._secrets.named_key(name)

    @override
    def audit_key(self, epoch: str) -> bytes:
        self._check("an audit key", allowed=self._allowed.audit)
        return self._secrets.audit_key(epoch)

    @override
    def draw_audit_key(self, epoch: str) -> bytes:
        self._check("an audit key", allowed=self._allowed.audit)
        return self._secrets.draw_audit_key(epoch)

    @override
    def audit_epochs(self) -> list[str]:
        self._check("an audit key", allowed=self._allowed.audit)
        return self._secrets.audit_epochs()

    @override
    def destroy_audit_key(self, epoch: str) -> None:
        self._check("an audit key", allowed=self._allowed.audit)
        self._secrets.destroy_audit_key(epoch)

    def _check(self, what: str, *, allowed: bool) -> None:
        if not allowed:
            raise InvalidError(
                Reason.CONFIG_INVALID,
                f"{what} was asked for by a process of the role {self._roles}, which may not read it; "
                "expected a key of this role's list (docs/how-to/run-roles-apart.md)",
            )


class FileSecrets(Secrets):
    """Keys in a folder of mode 0700: `topic.master`, `grant.master`, `named.master`, `audit/<epoch>.key`.

    Args:
        folder: where.
        masters: by name; a key of a master that is missing is refused.
        named: keys that were exported to a host without `named.master`.
    """

    def __init__(self, folder: Path, masters: Mapping[str, bytes], named: Mapping[str, bytes] | None = None) -> None:
        self._folder = folder
        self._masters = masters
        self._named = named or {}
        self._derived = lru_cache(maxsize=65_536)(self._derive)

    @classmethod
    def create(cls, folder: Path) -> "FileSecrets":
        """Draw the masters of a new pool.

        Raises:
            InvalidError: ALREADY_EXISTS, when there are some: another master would change every pseudonym.
        """
        private_folder(folder)
        for name in _MASTERS:
            if not create_private(folder / f"{name}.master", os.urandom(_KEY_SIZE)):
                raise InvalidError(
                    Reason.ALREADY_EXISTS, f"{folder} holds a pool's keys already; they are never replaced"
                )
        return cls.open(folder)

    @classmethod
    def open(cls, folder: Path) -> "FileSecrets":
        """Read the masters.

        Raises:
            InvalidError: CONFIG_INVALID, when one is missing, damaged or open to others.
        """
        return cls(folder, {name: _read_key(folder / f"{name}.master") for name in _MASTERS})

    @classmethod
    def open_part(cls, folder: Path, part: SecretsOfRole) -> "FileSecrets":
        """Read what a role needs: its masters, and `named.master` or else the exported named keys of the role.

        Raises:
            InvalidError: CONFIG_INVALID, when one is missing, damaged or open to others.
        """
        wanted = [name for name, needed in (("topic", part.topic), ("grant", part.grant)) if needed]
        named: dict[str, bytes] = {}
        if part.named and not (folder / "named").exists():
            wanted.append("named")
        elif part.named:
            named = {name: _read_key(_named_file(folder, name)) for name in sorted(part.named)}
        return cls(folder, {name: _read_key(folder / f"{name}.master") for name in wanted}, named)

    def export(self, folder: Path, part: SecretsOfRole) -> None:
        """Write what a role needs into another folder, for a host that has no other role.

        Raises:
            InvalidError: ALREADY_EXISTS, the folder has such a key.
        """
        private_folder(folder)
        files = {
            folder / f"{name}.master": self._masters[name]
            for name, needed in (("topic", part.topic), ("grant", part.grant))
            if needed
        }
        private_folder(folder / "named")
        files |= {_named_file(folder, name): self.named_key(name) for name in part.named}
        if part.audit and (epochs := self.audit_epochs()):
            audit = private_folder(folder / "audit")
            files |= {audit / f"{epoch}.key": self.audit_key(epoch) for epoch in epochs}
        for path, key in files.items():
            if not create_private(path, key):
                raise InvalidError(Reason.ALREADY_EXISTS, f"{path} is there already; export into an empty folder")

    @override
    def topic_key(self, resource: ResourceName) -> bytes:
        return self._derived("topic", str(resource))

    @override
    def grant_key(self, grant_id: str) -> bytes:
        return self._derived("grant", grant_id)

    @override
    def named_key(self, name: str) -> bytes:
        return self._named.get(name) or self._derived("named", name)

    @override
    def audit_key(self, epoch: str) -> bytes:
        _check_epoch(epoch)
        return read_private(self._folder / "audit" / f"{epoch}.key")

    @override
    def draw_audit_key(self, epoch: str) -> bytes:
        _check_epoch(epoch)
        folder = private_folder(self._folder / "audit")
        path = folder / f"{epoch}.key"
        if not path.exists():
            _check_not_over(epoch, (key.stem for key in folder.glob("*.key")))
            create_private(path, os.urandom(_KEY_SIZE))
        return read_private(path)

    @override
    def audit_epochs(self) -> list[str]:
        return sorted(key.stem for key in (self._folder / "audit").glob("*.key") if _EPOCH.fullmatch(key.stem))

    @override
    def destroy_audit_key(self, epoch: str) -> None:
        _check_epoch(epoch)
        destroy_private(self._folder / "audit" / f"{epoch}.key")

    def _derive(self, master: str, name: str) -> bytes:
        if master not in self._masters:
            raise InvalidError(
                Reason.CONFIG_INVALID,
                f"{self._folder} has no key of this kind and purpose ({master}); export the keys of the role again",
            )
        return _hkdf(self._masters[master], f"exchange-pool/1/{master}/{name}".encode())


class MemorySecrets(Secrets):
    """The in-memory adapter: the same derivation, from masters that live as long as the process.

    Args:
        seed: gives the same keys each time, for tests; None draws new ones.
    """

    def __init__(self, seed: bytes | None = None) -> None:
        self._seed = os.urandom(_KEY_SIZE) if seed is None else seed
        self._epochs: dict[str, bytes] = {}
        self._lock = threading.Lock()

    @override
    def topic_key(self, resource: ResourceName) -> bytes:
        return _hkdf(self._seed, b"topic/" + resource.encode())

    @override
    def grant_key(self, grant_id: str) -> bytes:
        return _hkdf(self._seed, b"grant/" + grant_id.encode())

    @override
    def named_key(self, name: str) -> bytes:
        return _hkdf(self._seed, b"named/" + name.encode())

    @override
    def audit_key(self, epoch: str) -> bytes:
        _check_epoch(epoch)
        with self._lock:
            if epoch not in self._epochs:
                raise InvalidError(Reason.CONFIG_INVALID, f"the audit key of {epoch} was never drawn")
            return self._epochs[epoch]

    @override
    def draw_audit_key(self, epoch: str) -> bytes:
        _check_epoch(epoch)
        with self._lock:
            if epoch not in self._epochs:
                _check_not_over(epoch, self._epochs)
            return self._epochs.setdefault(epoch, os.urandom(_KEY_SIZE))

    @override
    def audit_epochs(self) -> list[str]:
        with self._lock:
            return sorted(self._epochs)

    @override
    def destroy_audit_key(self, epoch: str) -> None:
        _check_epoch(epoch)
        with self._lock:
            self._epochs.pop(epoch, None)


def _named_file(folder: Path, name: str) -> Path:
    return folder / "named" / f"{name.replace('/', '.')}.key"


def _read_key(path: Path) -> bytes:
    key = read_private(path)
    if len(key) != _KEY_SIZE:
        raise InvalidError(
            Reason.CONFIG_INVALID,
            f"{path} has {len(key)} bytes, expected {_KEY_SIZE}; restore it from the backup",
        )
    return key


def _hkdf(master: bytes, info: bytes) -> bytes:
    # No salt: the master is random and of full length (RFC 5869, 3.1).
    return HKDF(algorithm=hashes.SHA256(), length=_KEY_SIZE, salt=None, info=info).derive(master)


def _check_not_over(epoch: str, drawn: Iterable[str]) -> None:
    latest = max(drawn, default="")
    if epoch < latest:
        raise InvalidError(
            Reason.REQUEST_INVALID,
            f"got the epoch {epoch}, which is over: {latest} has a key. A key that was lost or destroyed is not drawn "
            "again; restore a lost one from the backup",
        )


def _check_epoch(epoch: str) -> None:
    if not _EPOCH.fullmatch(epoch):
        raise InvalidError(Reason.REQUEST_INVALID, "got an epoch of another form; expected YYYY-MM, such as 2026-10")
