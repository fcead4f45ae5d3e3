"""Participants: departments and their successors, accounts, connectors."""

from dataclasses import dataclass

from exchange.audit.postgres import PostgresReceipts
from exchange.control.accounts import AccountService
from exchange.control.connectors import ConnectorService
from exchange.control.departments import DepartmentService
from exchange.control.grants.review import GrantReview
from exchange.control.succession.grants import GrantSuccession
from exchange.control.succession.service import Succession
from exchange.corrections.postgres import PostgresCorrections
from exchange.identity.connectors.postgres import PostgresConnectorStore
from exchange.identity.last_use import LastUse
from exchange.identity.postgres_proposals import PostgresProposals
from exchange.pool import VERSION
from exchange.requests.postgres import PostgresRequests
from exchange.server.assembly.catalogue import CatalogueServices
from exchange.server.assembly.dependencies import Dependencies
from exchange.server.assembly.records import Records
from exchange.server.assembly.sharing import Sharing
from exchange.server.clock import utc_now

__all__ = ["Participants", "open_participants"]


@dataclass(frozen=True, slots=True)
class Participants:
    """Services of departments, accounts and connectors."""

    departments: DepartmentService
    accounts: AccountService
    connectors: ConnectorService
    last_use: LastUse


def open_participants(
    core: Dependencies, records: Records, sharing: Sharing, catalogue: CatalogueServices
) -> Participants:
    """Connect the services of departments, accounts and connectors."""
    return Participants(
        departments=DepartmentService(
            database=core.storage.database,
            enforcer=core.audit.enforcer,
            attributes=core.authorization.attributes,
            departments=core.registry.departments,
            catalogue=core.registry.catalogue,
            enrolment=core.identity.enrolment,
            users=core.identity.users,
            grants=sharing.grants,
            grant_reads=sharing.grant_reads,
            succession=Succession(
                database=core.storage.database,
                enforcer=core.audit.enforcer,
                attributes=core.authorization.attributes,
                duties=core.authorization.duties,
                catalogue=core.registry.catalogue,
                procedure=catalogue.procedure,
                elements=catalogue.element_store,
                corrections=PostgresCorrections(core.tags),
                grants=GrantSuccession(
                    database=core.storage.database,
                    enforcer=core.audit.enforcer,
                    access=core.authorization.access,
                    attributes=core.authorization.attributes,
                    requests=PostgresRequests(core.tags),
                    review=GrantReview(core.authorization.access, records.views, core.authorization.attributes),
                ),
                now=utc_now,
            ),
            now=utc_now,
        ),
        accounts=AccountService(
            database=core.storage.database,
            enforcer=core.audit.enforcer,
            attributes=core.authorization.attributes,
            departments=core.registry.departments,
            store=core.identity.store,
            users=core.identity.users,
            proposals=PostgresProposals(core.tags),
            enrolment=core.identity.enrolment,
            now=utc_now,
            enrolment_address=lambda: core.config.invitation_address(
                core.addresses.get("enrolment", core.config.listen.enrolment)
            ),
            on_set_up=lambda: core.config.path("bootstrap-token").unlink(missing_ok=True),
            quotas=core.config.quotas,
        ),
        connectors=ConnectorService(
            database=core.storage.database,
            enforcer=core.audit.enforcer,
            attributes=core.authorization.attributes,
            identities=core.identity.store,
            store=PostgresConnectorStore(core.tags),
            receipts=PostgresReceipts(),
            entries=core.audit.entries,
            program=VERSION,
            now=utc_now,
        ),
        last_use=LastUse(core.storage.database, core.identity.store),
    )
