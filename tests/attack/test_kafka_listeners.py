"""Who may talk to Kafka: the gateway, and nobody else, at any of its listeners.

A stranger here holds every certificate that a department could come by, from Kafka's own authority (as if somebody
had mixed the two up), from the departments' authority or from one of his own. Every request is refused at every
listener before it is answered. The gateway itself can do its work and nothing beyond.
"""

import contextlib
import gc
import socket
import ssl
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from cryptography.x509.oid import NameOID
from kafka import errors as admin_errors
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ConfigResource,
    ConfigResourceType,
    ResourcePattern,
    ResourceType,
)

from exchange.broker.kafka.acls import EVERY_RULE, apply_acls
from exchange.broker.kafka.broker import KafkaBroker
from exchange.broker.kafka.settings import KafkaSettings, admin
from schemas.errors import UnavailableError
from tests.kit.cases.broker import KEY, append, batch, fresh_topic, lane_of, read_all
from tests.kit.patience import PATIENCE
from tests.kit.world.kafka import DEPLOY, ORGANISATION, Authority, Identity, Node

pytestmark = pytest.mark.kafka

CN, ORG, UNIT = NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME
TLS_ALERT = b"\x15\x03"  # "this is no TLS", said in TLS
CONNECTOR = "pool://city/department/01890000-0000-7000-8000-000000000001/connector/civil-affairs"
GATEWAY = [(ORG, ORGANISATION), (CN, "gateway")]

# Subjects that a department might get signed, one way or another, and that look like the gateway's or the brokers'.
SUBJECTS = {
    "a connector": [(CN, "01890000-0000-7000-8000-000000000001/civil-affairs")],
    "no name at all": [],
    "the gateway's common name alone": [(CN, "gateway")],
    "the brokers' common name alone": [(CN, "broker")],
    "the gateway's name in another organisation": [(ORG, "Civil Affairs"), (CN, "gateway")],
    "the gateway's names in the other order": [(CN, "gateway"), (ORG, ORGANISATION)],
    "one more name before": [(ORG, "Civil Affairs"), *GATEWAY],
    "one more name after": [*GATEWAY, (UNIT, "connectors")],
    "two common names": [(ORG, ORGANISATION), (CN, "civil-affairs"), (CN, "gateway")],
    "two common names, the other way": [(ORG, ORGANISATION), (CN, "gateway"), (CN, "civil-affairs")],
    "a comma within the common name": [(CN, f"gateway,O={ORGANISATION}")],
    "the whole name within the organisation": [(ORG, f"x,CN=gateway,O={ORGANISATION}")],
    "another case": [(ORG, ORGANISATION), (CN, "Gateway")],
    "a blank at the end": [(ORG, ORGANISATION), (CN, "gateway ")],
    "a name that begins like the gateway's": [(ORG, ORGANISATION), (CN, "gateway2")],
    "a user of the operator's making": [(ORG, ORGANISATION), (CN, "operator")],
    "the anonymous user": [(CN, "ANONYMOUS")],
}


@dataclass(frozen=True)
class Listeners:
    node: Node
    folder: Path

    def ports(self) -> dict[str, int]:
        return {"gateway": self.node.port, "controller": self.node.controller_port}


@pytest.fixture(scope="module")
def listeners(kafka_node: Node, tmp_path_factory: pytest.TempPathFactory) -> Listeners:
    return Listeners(kafka_node, tmp_path_factory.mktemp("listeners"))


def metadata_request() -> bytes:
    """Ask for all topics (Metadata, version 1): the first thing that any client does."""
    return framed(struct.pack(">hhih", 3, 1, 7, -1) + struct.pack(">i", -1))


def versions_request() -> bytes:
    """Ask for the supported versions (ApiVersions, version 0): answered even to those who may do nothing."""
    return framed(struct.pack(">hhih", 18, 0, 7, -1))


def framed(request: bytes) -> bytes:
    return struct.pack(">i", len(request)) + request


def answer(port: int, request: bytes, identity: Identity | None, *, tls: bool = True) -> bytes:
    """Send a request as this identity; give the answer, empty if the connection ended without one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # a stranger does not care who answers
    if identity is not None:
        context.load_cert_chain(identity.certificate, identity.key)
    with contextlib.ExitStack() as stack:
        raw = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE))
        try:
            line = stack.enter_context(context.wrap_socket(raw)) if tls else raw
            line.sendall(request)
            got = line.recv(1 << 16)
            while 0 < len(got) < 4 or (len(got) >= 4 and len(got) < 4 + int.from_bytes(got[:4], "big")):
                if got[:2] == TLS_ALERT or not (more := line.recv(1 << 16)):
                    return b""
                got += more
        except (ssl.SSLError, ConnectionError):
            return b""
        else:
            return got


def test_the_gateway_is_answered_and_a_request_is_well_formed(listeners: Listeners) -> None:
    got = answer(listeners.node.port, metadata_request(), listeners.node.gateway)
    assert struct.unpack(">i", got[4:8]) == (7,)
    assert answer(listeners.node.controller_port, versions_request(), listeners.node.gateway)[4:8] == struct.pack(
        ">i", 7
    )


@pytest.mark.parametrize("request_of", [metadata_request, versions_request])
@pytest.mark.parametrize("listener", ["gateway", "controller"])
@pytest.mark.parametrize("subject", SUBJECTS)
def test_a_certificate_of_kafkas_authority_with_another_name_is_nobody(
    listeners: Listeners, subject: str, listener: str, request_of: object
) -> None:
    stranger = listeners.node.authority.issue("stranger", SUBJECTS[subject], uri=CONNECTOR)
    assert answer(listeners.ports()[listener], request_of(), stranger) == b""  # type: ignore[operator]


@pytest.mark.parametrize("listener", ["gateway", "controller"])
@pytest.mark.parametrize("subject", [GATEWAY, [(ORG, ORGANISATION), (CN, "broker")], [(CN, "civil-affairs")]])
def test_a_certificate_of_another_authority_is_refused_whatever_it_says(
    listeners: Listeners, subject: list[tuple[object, str]], listener: str
) -> None:
    departments = Authority(listeners.folder / "departments", "the departments' authority")
    namesake = Authority(listeners.folder / "namesake", "Kafka's own authority")
    for authority in (departments, namesake):
        stranger = authority.issue("stranger", subject, uri=CONNECTOR)  # type: ignore[arg-type]
        assert answer(listeners.ports()[listener], versions_request(), stranger) == b""


@pytest.mark.parametrize("listener", ["gateway", "controller"])
@pytest.mark.parametrize("tls", [True, False])
def test_without_a_certificate_nothing_is_answered(listeners: Listeners, listener: str, tls: bool) -> None:
    assert answer(listeners.ports()[listener], versions_request(), None, tls=tls) == b""


def test_the_node_listens_nowhere_else(listeners: Listeners) -> None:
    import psutil

    listening = {
        connection.laddr.port
        for connection in psutil.Process(listeners.node.pid).net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == set(listeners.ports().values())


@pytest.fixture(scope="module")
def strangers(listeners: Listeners) -> dict[str, KafkaSettings]:
    departments = Authority(listeners.folder / "calls", "the departments' authority")
    own = listeners.node.authority.ca
    return {
        "kafka's authority": listeners.node.settings(listeners.node.authority.issue("caller", [(CN, "civil-affairs")])),
        "the departments' authority": listeners.node.settings(departments.issue("caller", GATEWAY, trusts=own)),
    }


@pytest.mark.parametrize("who", ["kafka's authority", "the departments' authority"])
def test_no_call_of_a_client_library_gets_anywhere(
    listeners: Listeners, strangers: dict[str, KafkaSettings], who: str
) -> None:
    broker, topic = KafkaBroker(listeners.node.settings(), key=KEY), fresh_topic("listeners")
    broker.create_topic(topic)
    append(broker, batch(lane_of(topic), 1))
    name, settings = str(topic), strangers[who]
    quick = {"socket.timeout.ms": 1000, "socket.connection.setup.timeout.ms": 1000}

    with pytest.raises(KafkaException):
        AdminClient(settings.admin() | quick).list_topics(timeout=1)
    reports: list[KafkaError | None] = []
    plain = {key: value for key, value in settings.admin().items() if key != "group.id"}
    producer = Producer(plain | quick | {"message.timeout.ms": 1000})
    producer.produce(name, b"x", b"k", 0, lambda error, _: reports.append(error))
    producer.flush(5)
    assert len(reports) == 1
    assert reports[0] is not None
    fencing = Producer(plain | quick | {"transactional.id": f"pool/lane/{lane_of(topic)}"})
    with pytest.raises(KafkaException):
        fencing.init_transactions(1)
    with closed(Consumer(settings.consumer(**quick))) as consumer:
        consumer.assign([TopicPartition(name, 0, 0)])
        messages = consumer.consume(10, 1)
        assert not [message for message in messages if message.error() is None]
    group = {"group.id": f"pool/lane/{lane_of(topic)}"}
    with closed(Consumer(settings.consumer(**group, **quick))) as consumer, pytest.raises(KafkaException):
        consumer.committed([TopicPartition(name, 0)], 1)
    # Nothing of it had an effect: no record came in, and the lane was not fenced.
    append(broker, batch(lane_of(topic), 2))
    assert len(read_all(broker, topic)) == 16
    broker.close()


@contextlib.contextmanager
def closed(consumer: Consumer) -> Iterator[Consumer]:
    try:
        yield consumer
    finally:
        consumer.close()


# kafka-python leaves the sockets of refused handshakes to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_stranger_gets_the_pools_error_from_the_adapter(listeners: Listeners) -> None:
    stranger = listeners.node.settings(
        listeners.node.authority.issue("adapter", [(CN, "civil-affairs")]), call_timeout=2.0
    )
    broker = KafkaBroker(stranger, key=KEY)
    with pytest.raises(UnavailableError):
        broker.create_topic(fresh_topic("listeners"))
    with pytest.raises(UnavailableError):
        broker.ends(fresh_topic("listeners"))
    broker.close()
    gc.collect()


# what the gateway may not


def test_the_gateway_may_not_delete_a_topic_or_change_its_shape_or_the_rules(listeners: Listeners) -> None:
    broker, topic = KafkaBroker(listeners.node.settings(), key=KEY), fresh_topic("listeners")
    broker.create_topic(topic)
    client = admin(listeners.node.settings())
    rule = ACL(
        "User:gateway",
        "*",
        ACLOperation.ALL,
        ACLPermissionType.ALLOW,
        ResourcePattern(ResourceType.CLUSTER, "kafka-cluster"),
    )
    for attempt in (
        lambda: client.delete_topics([str(topic)]),
        lambda: client.create_partitions({str(topic): 8}),
        lambda: client.describe_acls(EVERY_RULE),
    ):
        with pytest.raises(admin_errors.AuthorizationError):
            attempt()
    assert client.create_acls([rule])["failed"] == [admin_errors.ClusterAuthorizationFailedError]
    shorter = ConfigResource(ConfigResourceType.TOPIC, str(topic), {"retention.ms": "1"})
    with contextlib.suppress(admin_errors.AuthorizationError):
        client.alter_configs([shorter])
    client.close()
    assert broker.topic(topic).retention is None
    assert broker.topic(topic).partitions == 4
    broker.close()


def test_the_gateway_may_not_read_kafkas_own_topics(listeners: Listeners) -> None:
    broker, topic = KafkaBroker(listeners.node.settings(), key=KEY), fresh_topic("listeners")
    broker.create_topic(topic)
    append(broker, batch(lane_of(topic), 1))  # by now the topics of groups and transactions are there
    broker.close()
    for name in ("__consumer_offsets", "__transaction_state"):
        found = AdminClient(listeners.node.settings().admin()).list_topics(name, timeout=PATIENCE).topics[name]
        assert found.error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
        with closed(Consumer(listeners.node.settings().consumer(**{"auto.offset.reset": "earliest"}))) as consumer:
            consumer.assign([TopicPartition(name, number, 0) for number in range(8)])
            assert not [message for message in consumer.consume(10, 1) if message.error() is None]


@pytest.mark.parametrize("name", ["other/group", "pool", "lane/x"])
def test_the_gateway_may_not_use_groups_and_transactions_of_others(listeners: Listeners, name: str) -> None:
    settings = listeners.node.settings()
    client = admin(settings)
    with pytest.raises(admin_errors.GroupAuthorizationFailedError):
        client.list_group_offsets([name])
    client.close()
    producer = Producer(settings.admin() | {"transactional.id": name})
    with pytest.raises(KafkaException) as raised:
        producer.init_transactions(5)
    assert raised.value.args[0].code() == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED


def test_the_gateway_may_not_command_the_controller(listeners: Listeners) -> None:
    # UnregisterBroker, version 0, of a broker that does not exist: header with an empty client id and no tags.
    request = framed(struct.pack(">hhihB", 64, 0, 7, -1, 0) + struct.pack(">iB", 4711, 0))
    got = answer(listeners.node.controller_port, request, listeners.node.gateway)
    # length, correlation id, no tags, throttle time, then the error code
    assert struct.unpack(">h", got[13:15]) == (31,), "expected CLUSTER_AUTHORIZATION_FAILED"


def test_applying_the_rules_takes_away_what_somebody_has_added(listeners: Listeners) -> None:
    operator = listeners.node.settings(listeners.node.operator)
    stray = ACL(
        "User:civil-affairs",
        "*",
        ACLOperation.READ,
        ACLPermissionType.ALLOW,
        ResourcePattern(ResourceType.TOPIC, "*"),
    )
    client = admin(operator)
    assert client.create_acls([stray])["failed"] == []
    client.close()
    text = (DEPLOY / "acls.txt").read_text()
    assert apply_acls(operator, text) == (0, 1)
    assert apply_acls(operator, text) == (0, 0)
