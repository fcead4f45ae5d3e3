"""The shared-records hub: services on its rules."""

from functools import partial

from exchange.control.hub.rules import HubRulesService
from exchange.hub.store.postgres import PostgresHub
from exchange.hub.store.postgres_rules import PostgresRules
from exchange.server.assembly.dependencies import Dependencies
from exchange.server.clock import utc_now
from registry.database.unit_of_work import Reader
from registry.directory.catalogue import Catalogue
from schemas.errors import PoolError
from schemas.names import Topic

__all__ = ["open_hub_rules"]


def open_hub_rules(core: Dependencies) -> HubRulesService:
    """Connect the service on the rules of libraries."""
    return HubRulesService(
        database=core.storage.database,
        enforcer=core.audit.enforcer,
        attributes=core.authorization.attributes,
        store=PostgresRules(core.tags),
        hub=PostgresHub(core.tags),
        provider=partial(_provider_of, core.registry.catalogue),
        now=utc_now,
    )


def _provider_of(catalogue: Catalogue, reader: Reader, topic: Topic) -> str | None:
    try:
        return catalogue.get(reader, topic).provider
    except PoolError:
        return None  # not in the catalogue
