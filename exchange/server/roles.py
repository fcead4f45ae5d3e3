"""Roles of the pool's processes (`pool serve --role`), and the table of the keys that each of them may read.

A process opens its keys through `exchange.server.composition`, which asks this table: a key of another role is refused,
and its file is not opened. A process of several roles has the keys of them all.

What is not in the table is read by no process. A test goes through the folder of a new pool and fails for a key file
without a role.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, Self

from exchange.audit.entry_tags import ENTRY_ROLES
from exchange.identity.secrets_of_role import SecretsOfRole

__all__ = ["CHILDREN", "FIRST", "KEYS", "RESERVED", "WHOLE", "Part", "Role", "RoleKeys", "key_paths", "keys_of"]


class Role(StrEnum):
    """What a process does."""

    GATEWAY = "gateway"
    REGISTRY = "registry"
    SEQUENCER = "sequencer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What a process serves.

    Attributes:
        roles: of the process.
        listeners: that it opens, of those that its roles have; the metrics are not among them.
        name: under which `ports.json` knows it; "" = by its roles.
        owner: it starts the embedded PostgreSQL.
        children: names of the processes that it starts beside itself.
    """

    roles: frozenset[Role]
    listeners: frozenset[str] = frozenset({"grpc", "enrolment", "http", "registry"})
    name: str = ""
    owner: bool = False
    children: tuple[str, ...] = ()

    @classmethod
    def of_roles(cls, roles: Iterable[Role]) -> Self:
        """Return what a process of these roles serves where nothing is beside it; of several, it owns the database."""
        served = frozenset(roles)
        return cls(roles=served, owner=Role.GATEWAY in served or len(served) > 1)

    @property
    def serves_records(self) -> bool:
        """Return whether it serves records over gRPC."""
        return Role.GATEWAY in self.roles and "grpc" in self.listeners


WHOLE: Final = Part.of_roles(Role)
"""Everything in one process."""

CHILDREN: Final[Mapping[str, Part]] = {
    "control": Part(roles=frozenset({Role.GATEWAY}), listeners=frozenset({"enrolment", "http"}), name="control"),
    "registry": Part(roles=frozenset({Role.REGISTRY})),
}
"""What is beside the first process of a pool of several (`processes = "several"`), by name."""

FIRST: Final = Part(
    roles=frozenset({Role.GATEWAY, Role.SEQUENCER}),
    listeners=frozenset({"grpc"}),
    owner=True,
    children=tuple(CHILDREN),
)
"""The first process of a pool of several."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleKeys:
    """What one role, or a process of several, reads.

    Attributes:
        secrets: masters and named keys.
        files: key files, by their path in the pool's folder.
        broker: the key of the Kafka certificate that `pool.toml` names, where there is one.
    """

    secrets: SecretsOfRole
    files: frozenset[str] = frozenset()
    broker: bool = False


_LISTENER = "ca/server.key"
_AUTHORITY = "ca/authority.key"
_RECEIPTS = "secrets/receipts.key"
_LOG = "secrets/log.key"
_ROWS = frozenset(f"row-tags/{family}" for family in ("access", "directory", "identity", "registry"))
_HUB = frozenset({"row-tags/hub"})
_ERASURES = frozenset({"row-tags/erasure", "erasure-list"})
_GRANTS = frozenset({"grant-seal"})
_RECORDS = frozenset({"stored-records"})
_ENTRIES = frozenset(f"entries/{role}" for role in ENTRY_ROLES)

KEYS: Final[Mapping[str, RoleKeys]] = {
    # Any resource and any grant may come, so it needs the masters of both. It serves enrolment, so it signs
    # certificates.
    "gateway": RoleKeys(
        secrets=SecretsOfRole(
            topic=True,
            grant=True,
            audit=True,
            named=_ROWS | _HUB | _ERASURES | _GRANTS | _RECORDS | {"entries/gateway"},
        ),
        files=frozenset({_RECEIPTS, _AUTHORITY, _LISTENER}),
        broker=True,
    ),
    # It decides on grants too: who may draw a resource may read its schema. Kafka is for the topic of schemas.
    "registry": RoleKeys(
        secrets=SecretsOfRole(named=_ROWS | _GRANTS | {"entries/registry"}),
        files=frozenset({_LISTENER}),
        broker=True,
    ),
    # Every role that writes entries is known to it. It compares tags of rows and checks none.
    "sequencer": RoleKeys(secrets=SecretsOfRole(named=_ENTRIES), files=frozenset({_LOG})),
    # Commands with `--data`: initialisation, migration, verification with keys.
    "operator": RoleKeys(
        secrets=SecretsOfRole(
            topic=True, grant=True, audit=True, named=_ROWS | _HUB | _ERASURES | _GRANTS | _RECORDS | _ENTRIES
        ),
        files=frozenset({_RECEIPTS, _AUTHORITY, _LISTENER, _LOG}),
        broker=True,
    ),
    # A console calls the control API with the token of the person before it: a key of its listener, and no other.
    "console": RoleKeys(secrets=SecretsOfRole(), files=frozenset({_LISTENER})),
    # A hub between pools writes entries, once a sequencer knows it.
    "hub": RoleKeys(secrets=SecretsOfRole(named=frozenset({"entries/hub"})), files=frozenset({_LISTENER})),
}
"""By role."""

RESERVED: Final = frozenset({"console", "hub"})
"""Roles of which no process exists yet. `pool serve` refuses them, and the sequencer refuses their entries."""


def keys_of(roles: Iterable[str]) -> RoleKeys:
    """Return what a process of these roles reads: the keys of them all."""
    tables = [KEYS[str(role)] for role in roles]
    return RoleKeys(
        secrets=SecretsOfRole(
            topic=any(table.secrets.topic for table in tables),
            grant=any(table.secrets.grant for table in tables),
            audit=any(table.secrets.audit for table in tables),
            named=frozenset[str]().union(*(table.secrets.named for table in tables)),
        ),
        files=frozenset[str]().union(*(table.files for table in tables)),
        broker=any(table.broker for table in tables),
    )


def key_paths(roles: Iterable[str], folder: Path) -> list[Path]:
    """Return the key files that a process of these roles reads at its start, in the folder of its host."""
    table = keys_of(roles)
    masters = [name for name, needed in (("topic", table.secrets.topic), ("grant", table.secrets.grant)) if needed]
    named: list[Path] = []
    if table.secrets.named and not (folder / "secrets" / "named").exists():
        masters.append("named")
    elif table.secrets.named:
        named = [folder / "secrets" / "named" / f"{name.replace('/', '.')}.key" for name in sorted(table.secrets.named)]
    return [
        *(folder / file for file in sorted(table.files)),
        *(folder / "secrets" / f"{name}.master" for name in masters),
        *named,
    ]
