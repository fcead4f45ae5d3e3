"""Catalogue: entries and their procedure, data elements, search, export, zones."""

from dataclasses import dataclass

from exchange.control.administration import Administration, RegistryServices
from exchange.control.catalogue.element_use import ElementUseService
from exchange.control.catalogue.elements import ElementService
from exchange.control.catalogue.entries import CatalogueService
from exchange.control.catalogue.export import CatalogueExport
from exchange.control.catalogue.search import CatalogueSearch
from exchange.control.zones import ZoneService
from exchange.server.assembly.dependencies import Dependencies
from exchange.server.clock import utc_now
from registry.catalogue.procedure import Procedure
from registry.postgres.catalogue_records import PostgresRecords
from registry.postgres.catalogue_search import PostgresSearch
from registry.postgres.data_elements import PostgresElements

__all__ = ["CatalogueServices", "open_catalogue"]


@dataclass(frozen=True, slots=True)
class CatalogueServices:
    """Services of the catalogue."""

    administration: Administration
    catalogue: CatalogueService
    elements: ElementService
    element_use: ElementUseService
    catalogue_search: CatalogueSearch
    catalogue_export: CatalogueExport
    zones: ZoneService
    procedure: Procedure
    element_store: PostgresElements


def open_catalogue(core: Dependencies) -> CatalogueServices:
    """Connect the services of the catalogue."""
    services = RegistryServices(core.registry.departments, core.registry.catalogue, core.registry.subjects)
    administration = Administration(
        database=core.storage.database,
        enforcer=core.audit.enforcer,
        attributes=core.authorization.attributes,
        registry=services,
        broker=core.storage.broker,
        enrolment=core.identity.enrolment,
        now=utc_now,
        quotas=core.config.quotas,
    )
    elements = PostgresElements(core.tags)
    procedure = Procedure(
        PostgresRecords(core.tags),
        core.registry.catalogue,
        core.registry.subjects.lookup.full_classification,
        elements,
        PostgresSearch(),
    )
    return CatalogueServices(
        administration=administration,
        catalogue=CatalogueService(
            database=core.storage.database,
            enforcer=core.audit.enforcer,
            attributes=core.authorization.attributes,
            registry=services,
            procedure=procedure,
            administration=administration,
            access=core.authorization.access,
            broker=core.storage.broker,
            now=utc_now,
            quotas=core.config.quotas,
        ),
        elements=ElementService(
            database=core.storage.database,
            enforcer=core.audit.enforcer,
            attributes=core.authorization.attributes,
            departments=core.registry.departments,
            store=elements,
            records=PostgresRecords(core.tags),
        ),
        element_use=ElementUseService(
            database=core.storage.database,
            enforcer=core.audit.enforcer,
            attributes=core.authorization.attributes,
            catalogue=core.registry.catalogue,
            lookup=core.registry.subjects.lookup,
            store=elements,
        ),
        catalogue_search=CatalogueSearch(
            database=core.storage.database,
            enforcer=core.audit.enforcer,
            attributes=core.authorization.attributes,
            catalogue=core.registry.catalogue,
            index=PostgresSearch(),
        ),
        catalogue_export=CatalogueExport(
            database=core.storage.database,
            enforcer=core.audit.enforcer,
            attributes=core.authorization.attributes,
            departments=core.registry.departments,
            procedure=procedure,
            pool_id=core.config.pool_id,
        ),
        zones=ZoneService(
            database=core.storage.database,
            enforcer=core.audit.enforcer,
            attributes=core.authorization.attributes,
            departments=core.registry.departments,
            catalogue=core.registry.catalogue,
        ),
        procedure=procedure,
        element_store=elements,
    )
