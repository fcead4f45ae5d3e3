"""Registry REST API of a pool: the application of `registry.rest`, with the pool's identification and enforcement."""

from functools import partial

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from exchange import metrics
from exchange.access.grants.store import GrantQuery
from exchange.api.admission.scheduler import FairScheduler
from exchange.api.bodies.requests import grant_json
from exchange.api.registry.enforcement import RegistryAccessControl, registry_request_context
from exchange.api.registry.identification import RegistryIdentification
from exchange.config import Config
from exchange.pool import Pool
from registry.database.damaged_row import DamagedRow
from registry.governance.approvals import Approvals
from registry.rest.app import RestApplication, create
from registry.rest.errors import Dialect
from registry.rest.governance import GovernanceHandlers
from registry.subjects.services import SubjectServices
from schemas.access import Actor
from schemas.canonical import Json
from schemas.errors import PoolError
from schemas.names import Topic

__all__ = ["registry_api"]


def registry_api(
    pool: Pool, scheduler: FairScheduler, *, config: Config, subjects: SubjectServices, approvals: Approvals
) -> RestApplication:
    """Build the ASGI application of one process."""

    def grants(actor: Actor, subject: str) -> list[dict[str, Json]]:
        try:
            topic = Topic.parse(subject.removesuffix("-value"))
        except PoolError:
            return []
        query = GrantQuery(topic=topic)
        found = pool.grant_reads.list(actor, registry_request_context(), query)
        return [grant_json(grant) for grant in found if not isinstance(grant, DamagedRow)]

    access = RegistryAccessControl(pool.enforcer, pool.database, pool.identities, pool.schema_access, dev=config.dev)
    identification = RegistryIdentification(pool, dev=config.dev)
    return create(
        subjects,
        access,
        pool.database,
        identify=identification.identify,
        identify_from_cache=identification.from_cache,
        dialect=Dialect(config.registry.error_dialect),
        metrics=lambda: (generate_latest(), CONTENT_TYPE_LATEST),
        more=[partial(GovernanceHandlers, approvals=approvals, grants=grants)],
        abandoned=metrics.REQUESTS_ABANDONED.labels("registry").inc,
        turns=lambda scope: scheduler.turn(identification.flow(scope)),
    )
