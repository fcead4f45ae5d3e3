"""Registry of a process: departments, catalogue, subjects and approvals; the topic of schemas where Kafka is used."""

from dataclasses import dataclass

from exchange.config import Config
from exchange.identity.postgres import PostgresIdentityStore
from exchange.identity.tokens import Users
from exchange.server.brokers import open_schemas_topic
from exchange.server.clock import microseconds, utc_now
from exchange.server.roles import Role, keys_of
from exchange.server.schemas_topic import SchemasTopic
from registry.catalogue.element_references import DictionaryReferences
from registry.database.row_tags import RowTags
from registry.database.unit_of_work import PostgresDatabase
from registry.directory.catalogue import Catalogue
from registry.directory.departments import Departments
from registry.governance.approvals import Approvals
from registry.postgres.approvals import PostgresApprovals
from registry.postgres.catalogue_search import PostgresSearch
from registry.postgres.data_elements import PostgresElements
from registry.postgres.directory import PostgresCatalogue, PostgresDepartments
from registry.postgres.outbox import PostgresOutbox
from registry.postgres.subjects import PostgresSubjects
from registry.schemas_topic.outbox import OutboxWriter
from registry.subjects.services import SubjectServices
from registry.subjects.store import SubjectWriter
from schemas.identifiers import uuid7

__all__ = ["Registry", "new_id", "open_registry", "own_resources"]


@dataclass(frozen=True, slots=True)
class Registry:
    """Services of the registry, without authorization."""

    departments: Departments
    catalogue: Catalogue
    subjects: SubjectServices
    approvals: Approvals
    schemas_topic: SchemasTopic | None


def open_registry(config: Config, database: PostgresDatabase, tags: RowTags, roles: frozenset[Role]) -> Registry:
    """Open the registry."""
    departments = Departments(PostgresDepartments(tags), clock=utc_now, new_id=new_id)
    catalogue = Catalogue(PostgresCatalogue(tags), departments, clock=utc_now, on_saved=PostgresSearch().index_entry)
    persons = Users(PostgresIdentityStore(tags)).persons
    approvals = Approvals(PostgresApprovals(tags), clock=utc_now, new_id=new_id, persons=persons)
    store = PostgresSubjects(tags)
    outbox = PostgresOutbox(store)
    schemas_topic = open_schemas_topic(config, database, outbox) if keys_of(roles).broker else None
    writer: SubjectWriter = store
    if schemas_topic is not None:
        writer = OutboxWriter(store, store, outbox)
    subjects = SubjectServices.over(
        store,
        writer,
        governed=catalogue.governs,
        other_majors=catalogue.other_majors,
        strict=config.registry.strict_logical_types,
        validate=config.registry.validate_new_schemas,
        approved=approvals.consume,
        elements=DictionaryReferences(PostgresElements(tags)),
    )
    return Registry(departments, catalogue, subjects, approvals, schemas_topic)


def new_id() -> str:
    """Return the id of something that is made now."""
    return uuid7(microseconds())


def own_resources(database: PostgresDatabase, catalogue: Catalogue, department: str) -> frozenset[str]:
    """Return what a department sees entries about: itself, its topics and their subjects."""
    with database.read() as reader:
        topics = catalogue.provided_by(reader, department)
    return frozenset({department, *map(str, topics), *(topic.subject for topic in topics)})
