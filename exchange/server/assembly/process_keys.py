"""Key loader of a process: the keys of its roles; for each key of another role, a stand-in that refuses."""

from dataclasses import dataclass
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from exchange.audit.note import FileSigner
from exchange.config import Config
from exchange.identity.authority import Authority, read_authority_certificate
from exchange.identity.keyfile import read_ed25519
from exchange.identity.secrets import FileSecrets, RoleSecrets, Secrets
from exchange.server.key_files import receipts_key
from exchange.server.roles import Role, keys_of
from schemas.errors import InvalidError, Reason

__all__ = ["ProcessKeys", "absent"]


class _Absent:
    """Stand for what a process of these roles does not have; whatever is asked of it is refused."""

    def __init__(self, what: str, roles: frozenset[Role]) -> None:
        self._message = (
            f"{what} was asked for by a process of the role {_names(roles)}, which may not have it; "
            "expected a key of this role's list (docs/how-to/run-roles-apart.md)"
        )

    def close(self) -> None:
        """Do nothing: nothing was opened."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise InvalidError(Reason.CONFIG_INVALID, self._message)


def absent(what: str, roles: frozenset[Role]) -> Any:
    """Return a stand-in for what a process of these roles may not have: any use of it is CONFIG_INVALID."""
    return _Absent(what, roles)


def _names(roles: frozenset[Role]) -> str:
    return ", ".join(sorted(roles))


@dataclass(frozen=True, slots=True)
class ProcessKeys:
    """The keys that `pool init` made, those of the process's roles (`exchange.server.roles`); the others are absent.

    A start never makes one: a lost key must be noticed, not replaced.
    """

    secrets: Secrets
    row_families: frozenset[str]
    authority: Authority
    authority_certificate: bytes
    receipts: Ed25519PrivateKey
    log: FileSigner

    @classmethod
    def read(cls, config: Config, roles: frozenset[Role]) -> Self:
        """Read those of the roles.

        Raises:
            InvalidError: CONFIG_INVALID, one is missing, damaged or open to others; says what to do.
        """
        table = keys_of(roles)
        file, log = receipts_key(config.folder), config.path("secrets", "log.key")
        reads_receipts = str(file.relative_to(config.folder)) in table.files
        if reads_receipts and not file.exists():
            raise InvalidError(
                Reason.CONFIG_INVALID,
                f"{file} is missing; restore it from the backup. Where there is none, `pool renew-receipts-key` makes "
                "another: every connector then stops until its department has confirmed the new key with you",
            )
        secrets = FileSecrets.open_part(config.path("secrets"), table.secrets)
        authority: Authority = (
            Authority.load(config.path("ca"), config.pool_id)
            if "ca/authority.key" in table.files
            else absent("the authority's key", roles)
        )
        prefix = "row-tags/"
        return cls(
            RoleSecrets(secrets, table.secrets, _names(roles)),
            frozenset(name.removeprefix(prefix) for name in table.secrets.named if name.startswith(prefix)),
            authority,
            read_authority_certificate(config.path("ca")),
            read_ed25519(file) if reads_receipts else absent("the key of receipts", roles),
            FileSigner.load(log, config.origin) if "secrets/log.key" in table.files else absent("the log's key", roles),
        )
