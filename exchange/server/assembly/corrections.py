"""Corrections of records: tickets of the data subject's claims and of departments, notices, upkeep."""

from dataclasses import dataclass

from exchange.control.corrections.claim_seal import ClaimSeal
from exchange.control.corrections.publications import Publications
from exchange.control.corrections.reads import CorrectionReads
from exchange.control.corrections.recipients import Recipients
from exchange.control.corrections.records import CorrectionRecords
from exchange.control.corrections.routing import CorrectionRouting
from exchange.control.corrections.service import CorrectionService
from exchange.control.corrections.upkeep import CorrectionUpkeep
from exchange.corrections.postgres import PostgresCorrections
from exchange.erasure.postgres_retractions import PostgresRetractions
from exchange.identity.pseudonyms import Pseudonyms
from exchange.records.engine_tasks import json_values
from exchange.server.assembly.dependencies import Dependencies
from exchange.server.assembly.records import Records
from exchange.server.assembly.registry import new_id
from exchange.server.clock import utc_now
from registry.postgres.catalogue_records import PostgresRecords
from registry.postgres.data_elements import PostgresElements
from schemas.record import Packed, unframe

__all__ = ["Corrections", "open_corrections"]


@dataclass(frozen=True, slots=True)
class Corrections:
    """Services of correction tickets."""

    service: CorrectionService
    reads: CorrectionReads
    upkeep: CorrectionUpkeep


def open_corrections(core: Dependencies, records: Records) -> Corrections:
    """Connect the services of correction tickets."""
    database, enforcer, attributes = core.storage.database, core.audit.enforcer, core.authorization.attributes
    store = PostgresCorrections(core.tags)
    found = CorrectionRecords(core.storage.broker, Pseudonyms(core.keys.secrets))

    def as_text(value: bytes) -> str:
        schema_id, _ = unframe(value)
        with database.read() as reader:
            text = records.schemas.text(reader, schema_id)
        return next(iter(json_values(core.workers, text, Packed.of([value])))).decode()

    return Corrections(
        CorrectionService(
            database=database,
            enforcer=enforcer,
            attributes=attributes,
            access=core.authorization.access,
            store=store,
            records=found,
            routing=CorrectionRouting(PostgresRecords(core.tags), PostgresElements(core.tags)),
            publications=Publications(core.audit.entries),
            departments=core.registry.departments,
            retractions=PostgresRetractions(core.tags),
            seal=ClaimSeal(core.keys.secrets),
            as_text=as_text,
            now=utc_now,
            new_id=new_id,
        ),
        CorrectionReads(
            database=database,
            enforcer=enforcer,
            attributes=attributes,
            access=core.authorization.access,
            store=store,
            records=found,
            now=utc_now,
        ),
        CorrectionUpkeep(
            database=database,
            enforcer=enforcer,
            attributes=attributes,
            store=store,
            records=found,
            recipients=Recipients(database, core.authorization.access, core.audit.entries, found),
            departments=core.registry.departments,
            now=utc_now,
            new_id=new_id,
        ),
    )
