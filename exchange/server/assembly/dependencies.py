"""Dependencies that the services of a process share: storage, log, registry, identity and authorization.

They are opened in this order, each from those before it. The services (`sharing`, `catalogue`, `oversight` and so on)
are built from them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Self

import sqlalchemy as sa

from exchange import metrics
from exchange.authorization.restored import RestoreGuard
from exchange.authorization.serving import ServingGuard
from exchange.config import Config
from exchange.control.open_restores import find_open_restore
from exchange.engines.process_pool import ProcessPool
from exchange.server.assembly.audit import Audit, open_audit
from exchange.server.assembly.authorization import Authorization, Identity, open_authorization, open_identity
from exchange.server.assembly.process_keys import ProcessKeys
from exchange.server.assembly.registry import Registry, open_registry
from exchange.server.assembly.storage import Storage, open_storage
from exchange.server.roles import Role
from exchange.server.row_tags import open_row_tags
from registry.database.row_tags import RowTags
from registry.database.unit_of_work import Reader

__all__ = ["Dependencies"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependencies:
    """What every service of one process is built from."""

    config: Config
    keys: ProcessKeys
    window: float  # seconds that a release may take, which a revocation waits for
    tags: RowTags
    storage: Storage
    audit: Audit
    registry: Registry
    identity: Identity
    authorization: Authorization
    workers: ProcessPool
    restored: RestoreGuard
    serving: ServingGuard
    addresses: dict[str, str]  # listener → host:port, filled in when they are bound

    @classmethod
    def open(
        cls,
        config: Config,
        keys: ProcessKeys,
        roles: frozenset[Role],
        url: sa.URL,
        *,
        engines: int,
        window: float,
        now: Callable[[Reader], datetime],
    ) -> Self:
        """Open them.

        Args:
            config: of the pool.
            keys: of the process.
            roles: of the process.
            url: of the database.
            engines: number of engine processes.
            window: seconds that a release may take.
            now: by which grants and requests are decided.

        Raises:
            InvalidError: CONFIG_INVALID, the database is not what the configuration says, or a key of another role was
                asked for.
            UnavailableError: the database or the broker does not answer within the start-up timeout.
        """
        storage = open_storage(config, keys, url, roles)
        audit = open_audit(config, keys, storage, roles)
        tags = open_row_tags(keys.secrets)
        registry = open_registry(config, storage.database, tags, roles)
        identity = open_identity(config, keys, storage.database, registry, tags)
        return cls(
            config=config,
            keys=keys,
            window=window,
            tags=tags,
            storage=storage,
            audit=audit,
            registry=registry,
            identity=identity,
            authorization=open_authorization(keys, storage.database, registry, identity, tags, roles, now),
            workers=ProcessPool(engines, replaced=lambda why: metrics.ENGINES_REPLACED.labels(why).inc()),
            restored=RestoreGuard(partial(find_open_restore, storage.engine, audit.tags, config.folder)),
            serving=ServingGuard(),
            addresses={},
        )
