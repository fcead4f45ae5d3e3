"""Authorization of a process: accounts and certificates, stores of authority, attribute provider (PIP)."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from exchange.access.grants.group_postgres import PostgresGroupStore
from exchange.access.grants.postgres import PostgresAccessStore
from exchange.access.grants.row_mac import RowMac
from exchange.authorization.attribute_sources import CatalogueAttributes, IdentityAttributes
from exchange.authorization.attributes import AttributeProvider
from exchange.config import Config
from exchange.control.requests.stored import StoredRequests
from exchange.deadlines.postgres_changes import PostgresRuleChanges
from exchange.deadlines.stored_rules import StoredRules
from exchange.duties.postgres import PostgresDuties
from exchange.identity.authority import CertificateAuthenticator
from exchange.identity.enrolment import Connectors, Enrolment
from exchange.identity.postgres import PostgresIdentityStore
from exchange.identity.tokens import Users
from exchange.requests.postgres import PostgresRequests
from exchange.server.assembly.process_keys import ProcessKeys, absent
from exchange.server.assembly.registry import Registry
from exchange.server.clock import utc_now
from exchange.server.roles import Role, keys_of
from exchange.violations.postgres import PostgresViolations
from registry.database.row_tags import RowTags
from registry.database.unit_of_work import PostgresDatabase, Reader

__all__ = ["Authorization", "Identity", "open_authorization", "open_identity"]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who calls: certificates and accounts."""

    store: PostgresIdentityStore
    certificates: CertificateAuthenticator
    users: Users
    enrolment: Enrolment
    attributes: IdentityAttributes


def open_identity(
    config: Config, keys: ProcessKeys, database: PostgresDatabase, registry: Registry, tags: RowTags
) -> Identity:
    """Open accounts and certificates."""
    store = PostgresIdentityStore(tags)
    users = Users(store, lifetime=timedelta(days=config.accounts.token_days))
    return Identity(
        store,
        CertificateAuthenticator(config.pool_id, keys.authority_certificate),
        users,
        Enrolment(keys.authority, store),
        IdentityAttributes(database, Connectors(store), registry.departments, users, now=utc_now),
    )


@dataclass(frozen=True, slots=True)
class Authorization:
    """What a decision is made from."""

    access: PostgresAccessStore
    requests: StoredRequests
    duties: PostgresDuties
    violations: PostgresViolations
    groups: PostgresGroupStore
    attributes: AttributeProvider


def open_authorization(
    keys: ProcessKeys,
    database: PostgresDatabase,
    registry: Registry,
    identity: Identity,
    tags: RowTags,
    roles: frozenset[Role],
    now: Callable[[Reader], datetime],
) -> Authorization:
    """Open the stores that decisions are made from; only roles with the key of grants can check one."""
    seal = "grant-seal"
    mac = RowMac(keys.secrets.named_key(seal)) if seal in keys_of(roles).secrets.named else absent(seal, roles)
    access = PostgresAccessStore(mac, tags)
    attributes = AttributeProvider(
        identities=identity.attributes,
        catalogue=CatalogueAttributes(registry.catalogue, registry.subjects.lookup),
        access=access,
        rules=StoredRules(PostgresRuleChanges(tags)),
        now=now,
        database=database,
    )
    requests = StoredRequests(PostgresRequests(tags), attributes)
    return Authorization(
        access, requests, PostgresDuties(tags), PostgresViolations(tags), PostgresGroupStore(mac), attributes
    )
