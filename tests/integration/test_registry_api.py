"""The registry's REST API under uvicorn on PostgreSQL, spoken to by Confluent's own client and by hand."""

import uuid
from decimal import Decimal

import pytest
from confluent_kafka.schema_registry import Metadata, MetadataProperties, Schema
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.serialization import MessageField, SerializationContext

from registry.subjects.model import Content
from schemas import library
from schemas.access import Action
from tests.kit.world.registry_served import INT, LONG, TEXT, V1, Confluent, World, put, record

pytestmark = pytest.mark.postgres


def test_confluents_serializer_and_deserializer_round_trip(world: World, confluent: Confluent) -> None:
    client = confluent()
    context = SerializationContext("tax", MessageField.VALUE)
    value = {
        "id_number": "11010519491231002X",
        "insurance_type": "养老",
        "payment_month": "2026-01",
        "payment_base": Decimal("4321.50"),
        "pay_status": "paid",
        "employer_uscc": None,
    }
    serialize = AvroSerializer(client, library.text("tax_social_status"))
    framed = serialize(value, context)
    assert framed is not None
    assert framed[0] == 0
    # Another process knows nothing but the bytes.
    assert AvroDeserializer(confluent())(framed, context) == value
    schema_id = int.from_bytes(framed[1:5], "big")
    assert world.subjects.by_id(schema_id).content.text == library.text("tax_social_status").strip()
    assert world.subjects.subjects("tax") == ["tax-value"]


@pytest.mark.parametrize(
    "conf",
    [
        {"auto.register.schemas": False},
        {"auto.register.schemas": False, "use.latest.version": True},
        {"normalize.schemas": True},
    ],
)
def test_confluents_serializer_looks_up_what_is_registered(
    world: World, confluent: Confluent, conf: dict[str, object]
) -> None:
    topic = f"t{uuid.uuid4().hex}"
    schema_id = world.subjects.register(f"{topic}-value", Content(text=record("x"))).schema_id
    client = confluent()
    framed = AvroSerializer(client, record("x"), conf=conf)(
        {"x": "甲"}, SerializationContext(topic, MessageField.VALUE)
    )
    assert framed is not None
    assert int.from_bytes(framed[1:5], "big") == schema_id


def test_a_view_is_read_by_any_deserializer(world: World, confluent: Confluent) -> None:
    schema_id = world.subjects.register_view(uuid.uuid4().hex, 1, record("view", "of", "a", "grant"))
    framed = b"\0" + schema_id.to_bytes(4, "big") + b"\x02a\x02b\x02c\x02d"
    read = AvroDeserializer(confluent())
    assert read(framed, SerializationContext("any", MessageField.VALUE)) == {
        "view": "a",
        "of": "b",
        "a": "c",
        "grant": "d",
    }
    assert [(action, resource) for _, action, resource, _ in world.access.entries] == [
        (Action.SCHEMA_READ_BY_ID, world.subjects.by_id(schema_id).origin)
    ]
    assert world.http.get("/subjects", params={"subjectPrefix": "view."}).json() == []


def test_confluents_client_does_what_it_does(world: World, confluent: Confluent, subject: str) -> None:
    client = confluent()
    first = client.register_schema(subject, Schema(record("x"), "AVRO"))
    full = confluent().register_schema_full_response(subject, Schema(record("x", "y"), "AVRO"))
    assert full.version == 2
    assert full.guid is not None
    assert client.get_schema(first).schema_str == record("x")
    assert client.get_latest_version(subject).schema_id == full.schema_id
    assert client.get_version(subject, 1).schema_id == first
    assert client.get_versions(subject) == [1, 2]
    assert subject in client.get_subjects()
    looked_up = confluent().lookup_schema(subject, Schema(record("x"), "AVRO"))
    assert (looked_up.version, looked_up.schema_id) == (1, first)
    assert (subject, 1) in [(item.subject, item.version) for item in client.get_schema_versions(first)]
    assert subject in client.get_subjects_by_schema_id(first)
    assert client.test_compatibility(subject, Schema(record("x", "y", "z"), "AVRO"))
    assert not client.test_compatibility(subject, Schema(INT, "AVRO"))
    assert client.set_compatibility(subject, "FULL") == {"compatibility": "FULL"}
    assert client.get_compatibility(subject) == "FULL"
    assert client.delete_version(subject, 1) == 1
    assert client.delete_subject(subject) == [2]
    assert world.http.delete(f"/subjects/{subject}", params={"permanent": "true"}).json() == [1, 2]


def test_metadata_comes_back_as_it_went(world: World, confluent: Confluent, subject: str) -> None:
    client = confluent()
    metadata = Metadata(tags=None, properties=MetadataProperties(properties={"owner": "公安局"}), sensitive=None)
    schema_id = client.register_schema(subject, Schema(record("x"), "AVRO", metadata=metadata))
    read = confluent().get_schema(schema_id)
    assert read.metadata is not None
    assert read.metadata.properties == metadata.properties


def test_confluents_client_sees_the_error_numbers(world: World, confluent: Confluent, subject: str) -> None:
    client = confluent()
    with pytest.raises(SchemaRegistryError) as caught:
        client.get_latest_version(subject)
    assert (caught.value.http_status_code, caught.value.error_code) == (404, 40401)
    client.register_schema(subject, Schema(INT, "AVRO"))
    with pytest.raises(SchemaRegistryError, match="incompatible with an earlier schema") as caught:
        client.register_schema(subject, Schema(TEXT, "AVRO"))
    assert (caught.value.http_status_code, caught.value.error_code) == (409, 409)
    assert "at $ of the new schema: the reader expects string, the writer wrote int" in str(caught.value)


# --- errors, by hand -------------------------------------------------------------------------------------------


def test_every_refusal_has_its_number_and_words(world: World, subject: str) -> None:
    http = world.http
    put(world, subject, INT)
    put(world, subject, LONG)
    http.delete(f"/subjects/{subject}/versions/1")
    version_words = (
        "The specified version '{}' is not a valid version id. "
        'Allowed values are between [1, 2^31-1] and the string "latest"'
    )
    level_words = (
        "Invalid compatibility level. Valid values are none, backward, forward, full, backward_transitive, "
        "forward_transitive, and full_transitive"
    )
    other = f"{subject}x"
    for method, path, body, status, number, words in (
        ("GET", f"/subjects/{other}/versions", None, 404, 40401, f"Subject '{other}' not found."),
        ("POST", f"/subjects/{other}", {"schema": INT}, 404, 40401, f"Subject '{other}' not found."),
        ("DELETE", f"/subjects/{other}", None, 404, 40401, f"Subject '{other}' not found."),
        ("GET", f"/subjects/{subject}/versions/9", None, 404, 40402, "Version 9 not found."),
        ("GET", f"/subjects/{subject}/versions/1", None, 404, 40402, "Version 1 not found."),
        ("POST", f"/subjects/{subject}", {"schema": TEXT}, 404, 40403, "Schema not found"),
        ("GET", "/schemas/ids/99999", None, 404, 40403, "Schema 99999 not found"),
        ("GET", "/schemas/ids/99999999999999999999", None, 404, 40403, "Schema 99999999999999999999 not found"),
        ("GET", "/schemas/ids/99999/versions", None, 404, 40403, "Schema 99999 not found"),
        ("GET", "/schemas/ids/x", None, 404, 404, "HTTP 404 Not Found"),
        ("GET", "/nowhere", None, 404, 404, "HTTP 404 Not Found"),
        ("PUT", "/subjects", {}, 405, 405, "HTTP 405 Method Not Allowed"),
        (
            "DELETE",
            f"/subjects/{subject}?permanent=true",
            None,
            404,
            40405,
            f"Subject '{subject}' was not deleted first before being permanently deleted",
        ),
        (
            "DELETE",
            f"/subjects/{subject}/versions/1",
            None,
            404,
            40406,
            f"Subject '{subject}' Version 1 was soft deleted.Set permanent=true to delete permanently",
        ),
        (
            "DELETE",
            f"/subjects/{subject}/versions/2?permanent=true",
            None,
            404,
            40407,
            f"Subject '{subject}' Version 2 was not deleted first before being permanently deleted",
        ),
        (
            "GET",
            f"/config/{subject}",
            None,
            404,
            40408,
            f"Subject '{subject}' does not have subject-level compatibility configured",
        ),
        (
            "GET",
            f"/mode/{subject}",
            None,
            404,
            40409,
            f"Subject '{subject}' does not have subject-level mode configured",
        ),
        ("POST", f"/subjects/{subject}/versions", {"schema": '{"type":"nonsense"}'}, 422, 42201, "Invalid schema: "),
        ("POST", f"/subjects/{subject}/versions", {"schema": "{"}, 422, 42201, "Invalid schema: "),
        ("POST", f"/subjects/{subject}/versions", {"schema": INT, "schemaType": "XML"}, 422, 42201, "Invalid schema: "),
        ("GET", f"/subjects/{subject}/versions/0", None, 422, 42202, version_words.format(0)),
        ("GET", f"/subjects/{subject}/versions/newest", None, 422, 42202, version_words.format("newest")),
        ("GET", f"/subjects/{subject}/versions/2147483648", None, 422, 42202, version_words.format(2147483648)),
        ("PUT", "/config", {"compatibility": "SIDEWARD"}, 422, 42203, level_words),
        ("PUT", f"/mode/{subject}", {"mode": "SIDEWARD"}, 422, 42204, "Invalid mode: "),
        ("POST", "/subjects/%00/versions", {"schema": INT}, 422, 42208, "got a subject"),
        ("POST", "/subjects/%FF/versions", {"schema": INT}, 422, 42208, "got a subject"),
        ("GET", "/subjects/a%00b/versions", None, 422, 42208, "got a subject"),
        ("POST", "/subjects/view.g.v1/versions", {"schema": INT}, 422, 42208, "got the subject view.g.v1"),
        ("POST", f"/subjects/{subject}/versions", {}, 422, 422, 'got nothing for "schema"'),
        ("POST", f"/subjects/{subject}/versions", {"schema": {"type": "int"}}, 422, 422, "got a value of type dict"),
        ("POST", f"/subjects/{subject}/versions", {"schema": INT, "references": [1]}, 422, 422, 'got "references"'),
        ("PUT", f"/mode/{subject}", {}, 422, 422, 'got nothing for "mode"'),
        ("GET", "/subjects?deleted=perhaps", None, 422, 422, "got another deleted than expected"),
    ):
        answer = http.request(method, path, json=body)
        told = f"{method} {path}: {answer.status_code} {answer.text}"
        assert answer.status_code == status, told
        assert answer.json()["error_code"] == number, told
        assert answer.json()["message"].startswith(words), told
        assert answer.headers["content-type"] == V1, told


def test_a_subject_deleted_twice_and_read_only_subjects(world: World, subject: str) -> None:
    put(world, subject, INT)
    assert world.http.delete(f"/subjects/{subject}").json() == [1]
    answer = world.http.delete(f"/subjects/{subject}")
    assert (answer.status_code, answer.json()["error_code"]) == (404, 40404)
    words = f"Subject '{subject}' was soft deleted.Set permanent=true to delete permanently"
    assert answer.json()["message"] == words
    assert world.http.put(f"/mode/{subject}", json={"mode": "READONLY"}).json() == {"mode": "READONLY"}
    refused = put(world, subject, INT)
    assert (refused.status_code, refused.json()["error_code"]) == (422, 42205)
    assert world.http.get(f"/mode/{subject}").json() == {"mode": "READONLY"}
    assert world.http.delete(f"/mode/{subject}").json() == {"mode": "READONLY"}
    assert put(world, subject, INT).status_code == 200
    assert world.http.get(f"/subjects/{subject}/versions", params={"deleted": "True"}).json() == [1, 2]


def test_an_unclassified_field_is_named(world: World, subject: str) -> None:
    answer = put(world, f"governed-{subject}", record("x"))
    assert (answer.status_code, answer.json()["error_code"]) == (422, 42201)
    assert "$.fields[0] (x): missing: zh, level, personal, sensitive, mask" in answer.json()["message"]


# --- headers and bodies ----------------------------------------------------------------------------------------
