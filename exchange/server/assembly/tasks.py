"""Tasks: the sources of the worklist (what waits for whom, and until when)."""

from collections.abc import Collection
from functools import partial

from exchange.authorization.schema_access import SchemaAccess
from exchange.control.tasks.answers import CaseTasks, NoticeTasks, TicketTasks
from exchange.control.tasks.catalogue import CatalogueTasks
from exchange.control.tasks.changes import TaskChanges
from exchange.control.tasks.requests import RequestTasks
from exchange.control.tasks.second_person import ApprovalTasks, ErasureTasks, ProposalTasks, RuleTasks
from exchange.control.tasks.service import TaskService
from exchange.corrections.postgres import PostgresCorrections
from exchange.deadlines.postgres_changes import PostgresRuleChanges
from exchange.erasure.postgres_erasures import PostgresErasures
from exchange.identity.postgres import PostgresIdentityStore
from exchange.identity.postgres_proposals import PostgresProposals
from exchange.server.assembly.dependencies import Dependencies
from exchange.server.assembly.registry import own_resources
from exchange.violations.postgres import PostgresViolations
from registry.postgres.approvals import PostgresApprovals
from registry.postgres.catalogue_records import PostgresRecords
from schemas.errors import PoolError

__all__ = ["open_tasks"]


def open_tasks(core: Dependencies) -> TaskService:
    """Connect the worklist with what its tasks are read from."""
    attributes, access = core.authorization.attributes, core.authorization.access
    corrections = PostgresCorrections(core.tags)
    schemas = SchemaAccess(
        core.storage.database, core.registry.catalogue, access, rights=core.config.registry.as_rights()
    )

    def parties(grant_id: str) -> Collection[str]:
        with core.storage.database.read() as reader:
            try:
                grant = access.get(reader, grant_id)
            except PoolError:
                return ()
        return (grant.consumer, grant.provider)

    return TaskService(
        database=core.storage.database,
        enforcer=core.audit.enforcer,
        attributes=attributes,
        sources=(
            RequestTasks(access, core.authorization.requests, PostgresViolations(core.tags), attributes),
            CatalogueTasks(PostgresRecords(core.tags), attributes),
            TicketTasks(corrections, attributes),
            NoticeTasks(corrections),
            CaseTasks(PostgresViolations(core.tags), attributes, core.registry.departments),
            ProposalTasks(PostgresProposals(core.tags), PostgresIdentityStore(core.tags), attributes),
            ApprovalTasks(PostgresApprovals(core.tags), schemas.owner),
            RuleTasks(PostgresRuleChanges(core.tags)),
            ErasureTasks(PostgresErasures(core.tags), attributes),
        ),
        changes=TaskChanges(
            core.audit.entries, partial(own_resources, core.storage.database, core.registry.catalogue), parties
        ),
        pool_id=core.config.pool_id,
    )
