"""Confluent's Python client, serializer and deserializer, unchanged, against `pool serve --dev` on PostgreSQL."""

import json
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from confluent_kafka.schema_registry import (
    Metadata,
    MetadataProperties,
    Rule,
    RuleKind,
    RuleMode,
    RuleParams,
    RuleSet,
    Schema,
    SchemaReference,
    SchemaRegistryClient,
    ServerConfig,
    dual_schema_id_deserializer,
    header_schema_id_serializer,
)
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.common.schema_registry_client import ConfigCompatibilityLevel
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.serialization import MessageField, SerializationContext

from tests.e2e.test_registry_processes import pool
from tests.kit.patience import PATIENCE

pytestmark = [pytest.mark.e2e, pytest.mark.postgres]

Client = Callable[[], SchemaRegistryClient]

ADDRESS = json.dumps(
    {"type": "record", "name": "Address", "namespace": "a", "fields": [{"name": "street", "type": "string"}]}
)
PERSON = json.dumps(
    {
        "type": "record",
        "name": "Person",
        "fields": [
            {"name": "name", "type": "string", "confluent:tags": ["PII"]},
            {"name": "home", "type": "a.Address"},
        ],
    }
)
VALUE = {"name": "王", "home": {"street": "长安街"}}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    folder = Path(tempfile.mkdtemp(prefix="pool-confluent-"))
    folder.chmod(0o755)  # the embedded PostgreSQL's own user must pass through
    with pool(folder, "gateway", "registry", "sequencer") as (_, addresses):
        yield f"http://{addresses['registry']}"
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with ExitStack() as stack:
        yield lambda: stack.enter_context(SchemaRegistryClient({"url": url}))


@pytest.fixture
def topic() -> str:
    return f"t{uuid.uuid4().hex}"


def test_references_go_there_and_back(client: Client, topic: str) -> None:
    first = client()
    first.register_schema(f"{topic}-address", Schema(ADDRESS, "AVRO"))
    schema = Schema(PERSON, "AVRO", references=[SchemaReference("a.Address", f"{topic}-address", 1)])
    context = SerializationContext(topic, MessageField.VALUE)
    framed = AvroSerializer(first, schema)(VALUE, context)
    assert AvroDeserializer(client())(framed, context) == VALUE
    read = client().get_latest_version(f"{topic}-value")
    assert read.schema.references == schema.references
    assert client().get_referenced_by(f"{topic}-address", 1) == [read.schema_id]
    with pytest.raises(SchemaRegistryError) as caught:
        client().delete_subject(f"{topic}-address")
    assert caught.value.error_code == 42206


def test_metadata_and_rules_are_stored_and_found(client: Client, topic: str) -> None:
    metadata = Metadata(
        tags=None,  # with tags this client's own cache fails: it hashes their lists
        properties=MetadataProperties(properties={"owner": "公安局", "major": "1"}),
        sensitive=["secret"],
    )
    rule = Rule(
        name="adult",
        doc="",
        kind=RuleKind.CONDITION,
        mode=RuleMode.WRITE,
        type="CEL",
        tags=["PII"],
        params=RuleParams(params={"a": "b"}),
        expr="message.age >= 18",
        on_success="NONE",
        on_failure="ERROR",
        disabled=False,
    )
    rules = RuleSet(migration_rules=None, domain_rules=[rule])
    schema = Schema(ADDRESS, "AVRO", metadata=metadata, rule_set=rules)
    told = client().register_schema_full_response(f"{topic}-value", schema)
    for read in (
        client().get_schema(told.schema_id),
        client().get_latest_version(f"{topic}-value").schema,
        client().get_latest_with_metadata(f"{topic}-value", {"owner": "公安局"}).schema,
        client().lookup_schema(f"{topic}-value", schema).schema,
    ):
        assert read.metadata == metadata
        assert read.rule_set.domain_rules == [rule]


def test_the_guid_stands_in_the_header(client: Client, topic: str) -> None:
    first = client()
    headers: list[tuple[str, bytes]] = []
    context = SerializationContext(topic, MessageField.VALUE, headers)
    value = {"street": "a long street"}
    serializer = AvroSerializer(first, ADDRESS, conf={"schema.id.serializer": header_schema_id_serializer})
    plain = serializer(value, context)
    assert plain == b"\x1aa long street", "no frame before the record"
    assert [name for name, _ in context.headers] == ["__value_schema_id"]
    deserializer = AvroDeserializer(client(), conf={"schema.id.deserializer": dual_schema_id_deserializer})
    assert deserializer(plain, context) == value
    guid = client().register_schema_full_response(f"{topic}-value", Schema(ADDRESS, "AVRO")).guid
    assert client().get_schema_by_guid(guid).schema_str == ADDRESS


def test_configuration_modes_and_contexts(client: Client, topic: str, url: str) -> None:
    name = f"{topic}-value"
    override = Metadata(None, MetadataProperties({"a": "b"}), None)
    client().set_config(name, ServerConfig(compatibility=ConfigCompatibilityLevel.FULL, override_metadata=override))
    assert client().get_config(name).compatibility_level == "FULL"
    client().register_schema(name, Schema(ADDRESS, "AVRO"))
    assert client().get_latest_version(name).schema.metadata.properties.properties == {"a": "b"}
    with SchemaRegistryClient({"url": f"{url}/contexts/.police"}) as inner:
        inner.register_schema(name, Schema('"int"', "AVRO"))
        assert inner.get_subjects() == [f":.police:{name}"]
    assert client().get_latest_version(f":.police:{name}").schema.schema_str == '"int"'
    assert name in client().get_subjects()
    assert httpx.get(f"{url}/contexts", timeout=PATIENCE).json() == [".", ".police"]


def test_what_karapace_s_clients_and_monitoring_ask_for(url: str) -> None:
    assert httpx.get(f"{url}/master_available", timeout=PATIENCE).json() == {"master_available": True}
    assert httpx.get(f"{url}/_health", timeout=PATIENCE).json() == {"status": "ok"}
    assert "python_info" in httpx.get(f"{url}/metrics", timeout=PATIENCE).text
    assert httpx.get(f"{url}/schemas/types", timeout=PATIENCE).json() == ["JSON", "PROTOBUF", "AVRO"]
    assert httpx.get(f"{url}/v1/metadata/id", timeout=PATIENCE).status_code == 200
