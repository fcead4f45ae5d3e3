"""Audit of a process: ledger, enforcement point (PEP), sequencer and receipts over the signed log."""

import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from exchange import metrics
from exchange.audit.entry_tags import EntryTags
from exchange.audit.ledger import AuditLedger
from exchange.audit.postgres import PostgresEntries, PostgresReceipts
from exchange.audit.postgres_log import PostgresLog
from exchange.audit.search.authenticity import SignedHashes
from exchange.audit.sequencer import Sequencer
from exchange.audit.store import ReceiptStore
from exchange.authorization.actor_budgets import ActorBudgets
from exchange.authorization.authentications import Authentications
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.text_screen import TextScreen
from exchange.config import Config
from exchange.identity.audit_pseudonyms import AuditPseudonyms
from exchange.identity.failure_limiter import FailureLimiter
from exchange.identity.secrets import Secrets
from exchange.records.sealed_receipts import SealedReceipts
from exchange.server.assembly.process_keys import ProcessKeys, absent
from exchange.server.assembly.storage import Storage
from exchange.server.clock import microseconds
from exchange.server.roles import Role
from exchange.server.row_tags import open_entry_tags
from exchange.server.supervision.startup_retry import retry_until_available
from registry.database.unit_of_work import UnitOfWork
from schemas.access import Actor, ActorKind
from schemas.access import Role as AccountRole
from schemas.audit import AuditEntry
from schemas.canonical import Json
from schemas.identifiers import random_id, uuid7

__all__ = ["Audit", "open_audit", "open_receipts", "process_recorder"]

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Audit:
    """What writes, signs and reads the log."""

    tags: EntryTags
    entries: PostgresEntries
    ledger: AuditLedger
    enforcer: Enforcer
    authentications: Authentications
    log: PostgresLog
    sequencer: Sequencer


def open_audit(config: Config, keys: ProcessKeys, storage: Storage, roles: frozenset[Role]) -> Audit:
    """Open the log: every process writes entries, a sequencer signs them too."""
    process = f"{socket.gethostname()[:40]}@{uuid7(microseconds())}"
    tags = open_entry_tags(keys.secrets, roles)
    entries = PostgresEntries(storage.engine, tags, SignedHashes(config.path("log")))
    ledger = AuditLedger(entries, process=process)
    retry_until_available(lambda: ledger.open(storage.database))
    log = PostgresLog(storage.engine, tags, report=_report_entry)
    return Audit(
        tags,
        entries,
        ledger,
        Enforcer(
            storage.database,
            ledger,
            pool_id=config.pool_id,
            clock=microseconds,
            screen=TextScreen(config.parsed_case_forms()),
            budgets=ActorBudgets(config.limits.per_minute),
        ),
        Authentications(
            storage.database,
            ledger,
            pool_id=config.pool_id,
            clock=microseconds,
            limiter=FailureLimiter(time.monotonic),
        ),
        log,
        Sequencer(log, config.path("log"), signer=keys.log, origin=config.origin, clock=microseconds)
        if Role.SEQUENCER in roles
        else absent("the log's key", roles),
    )


def open_receipts(secrets: Secrets) -> ReceiptStore:
    """Return the store of receipts: in PostgreSQL, with sealed pseudonyms."""
    return SealedReceipts(PostgresReceipts(), AuditPseudonyms(secrets, microseconds))


def process_recorder(config: Config, ledger: AuditLedger) -> Callable[[UnitOfWork, str, Mapping[str, Json]], None]:
    """Return a function that writes an entry of the process itself, which no rule decides on."""
    actor = Actor(kind=ActorKind.MACHINE, id="sequencer", department="", role=AccountRole.OPERATOR)

    def record(work: UnitOfWork, action: str, data: Mapping[str, Json]) -> None:
        now = microseconds()
        entry = AuditEntry(
            pool=config.pool_id,
            id=uuid7(now),
            at=now,
            gateway="",
            salt=random_id(),
            actor=actor,
            action=action,
            resource=config.pool_id,
            data=data,
        )
        ledger.write(work, [entry])

    return record


def _report_entry(entry: str, process: str) -> None:
    metrics.ENTRIES_REFUSED.inc()
    _log.error("entry_refused", entry=entry[:40], process=process[:200])
