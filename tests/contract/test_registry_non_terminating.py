"""An infinitely recursive record may be registered where nothing is decoded, and nowhere else."""

import json

from registry.avro.compatibility import Compatibility
from registry.directory.catalogue import Catalogue
from registry.directory.model import CatalogueEntry, GovernmentLevel, ShareType
from registry.subjects.model import Content, SchemaReference
from schemas import library
from schemas.access import Level
from schemas.errors import Reason
from tests.kit.cases.registry import TOPIC, USCC, Stores, Subjects, directory, refused, service

FREE = "lists"


def non_terminating(kind: str = "int", **more: str) -> Content:
    fields = [{"name": "head", "type": kind, **more}, {"name": "tail", "type": "List"}]
    return Content(text=json.dumps({"type": "record", "name": "List", "fields": fields}))


def catalogued(stores: Stores) -> tuple[Catalogue, CatalogueEntry]:
    departments, catalogue = directory(stores)
    provider = departments.register(
        uscc=USCC, name="某市公安局", short_name="公安局", level=GovernmentLevel.CITY, division_code="520100"
    )
    entry = CatalogueEntry(
        topic=TOPIC,
        title="自然人基础信息",
        provider=provider.id,
        code="101001/000001",
        share_type=ShareType.CONDITIONAL,
        share_scope="各级政务部门",
        use_purpose="履行法定职责",
        level=Level.G4,
    )
    return catalogue, catalogue.create(entry)


def test_where_nothing_is_catalogued_it_is_registered_found_and_compared(stores: Stores) -> None:
    subjects = service(stores)
    first = subjects.register(FREE, non_terminating("int"))
    assert subjects.register(FREE, non_terminating("int")) == first
    assert subjects.find_version(FREE, non_terminating("int")).number == 1
    assert subjects.find_incompatibilities(FREE, non_terminating("long")) == []
    assert [item.field for item in subjects.find_incompatibilities(FREE, non_terminating("string"))] == ["head"]
    assert subjects.register(FREE, non_terminating("long")).number == 2
    refused(Reason.SCHEMA_INCOMPATIBLE, lambda: subjects.register(FREE, non_terminating("string")))
    assert subjects.parsed_for_comparison(first.schema_id).fields
    assert refused(Reason.SCHEMA_UNSAFE, lambda: subjects.parsed_by_id(first.schema_id)).details["field"] == "tail"


def test_what_is_unsafe_in_another_way_is_refused_everywhere(stores: Stores) -> None:
    subjects = service(stores)
    for inner in ('{"type": "array", "items": "null"}', '{"type": "map", "values": "null"}'):
        text = non_terminating().text.replace('"int"', inner)
        error = refused(Reason.SCHEMA_UNSAFE, lambda text=text: subjects.register(FREE, Content(text=text)))
        assert error.details["field"] == "head"


def test_under_a_catalogued_resource_it_is_refused_with_the_field(stores: Stores) -> None:
    catalogued(stores)
    subjects = service(stores)
    for act in (subjects.register, subjects.find_incompatibilities, subjects.lowered_classification):
        error = refused(Reason.SCHEMA_UNSAFE, lambda act=act: act(TOPIC.subject, non_terminating()))
        assert error.details["field"] == "tail"
        assert "without end" in error.message


def test_by_a_reference_it_is_refused_under_a_catalogued_resource_too(stores: Stores) -> None:
    subjects = service(stores)
    held = subjects.register(FREE, Content(text=non_terminating().text.replace('"List"', '"gov.List"')))
    catalogued(stores)
    full = json.loads(library.text("population"))
    field = {"name": "list", "type": ["null", "gov.List"], "zh": "表", "level": "G1", "personal": "N", "sensitive": "N"}
    full["fields"].append(field | {"mask": "none", "default": None})
    from_free = Content(text=json.dumps(full), references=(SchemaReference("gov.List", FREE, held.number),))
    error = refused(Reason.SCHEMA_UNSAFE, lambda: subjects.register(TOPIC.subject, from_free))
    assert error.details["field"] == "list.tail"


def test_a_subject_that_is_catalogued_later_is_not_published_until_it_is_gone(stores: Stores) -> None:
    subjects = service(stores, Compatibility.NONE)
    subjects.register(TOPIC.subject, non_terminating())
    catalogue, entry = catalogued(stores)

    def publish() -> CatalogueEntry:
        return catalogue.publish(TOPIC, subjects.services.lookup.full_classification, version=entry.version)

    error = refused(Reason.SCHEMA_UNSAFE, publish)
    assert error.details["field"] == "tail"
    subjects.delete(TOPIC.subject)
    refused(Reason.SCHEMA_UNSAFE, lambda: subjects.register(TOPIC.subject, non_terminating()))
    subjects.register(TOPIC.subject, Content(text=library.text("population")))
    assert publish().topic == TOPIC


def test_a_subject_that_is_catalogued_meanwhile_is_one_thing_throughout(stores: Stores) -> None:
    """Asked twice, it could be free for the schema's form and governed for its classification, or the other way."""
    for first, second in ((True, False), (False, True)):
        answers = iter([first, second])
        subjects = Subjects(stores.subjects, governed=lambda _, it=answers: next(it))
        if first:
            refused(Reason.SCHEMA_UNSAFE, lambda subjects=subjects: subjects.register(FREE, non_terminating()))
        else:
            assert subjects.register(FREE, non_terminating()).number == 1
        assert next(answers) is second, "it was asked once"
