"""Every listener is bounded, before and after authentication: what one caller holds open is no other's loss.

A pool with few places, so that a few hundred calls are too many. Callers at 127.0.0.2 and other addresses of the
loopback are other sources.
"""

import re
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import grpc
import httpx
import pytest

from exchange.client import Identity
from schemas.errors import Reason
from schemas.proto.pool.v1 import enrolment_pb2
from schemas.proto.pool.v1 import exchange_pb2 as wire
from tests.kit.faults.open_calls import OpenCalls
from tests.kit.faults.other_address import from_address
from tests.kit.patience import PATIENCE, wait_for
from tests.kit.share import count
from tests.kit.world.attacked import AttackedPool
from tests.kit.world.world import World

pytestmark = [pytest.mark.postgres, pytest.mark.e2e]

STREAMS = 200
LIMITS = f"[limits]\nstreams = {STREAMS}\nconnections = 400\nconnections_per_source = 60\nenrolments_per_minute = 60\n"
MIB = 1024 * 1024
FLAT = 96 * MIB  # that a gateway may grow by while it refuses
FETCH, PUBLISH = "/pool.v1.Exchange/Fetch", "/pool.v1.Exchange/Publish"
WATCH, ENROL = "/grpc.health.v1.Health/Watch", "/pool.v1.Enrolment/Enrol"
REFLECT = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


class Pool(AttackedPool):
    """An attacked pool of which it is watched what it refuses, and how it grows."""

    def refused(self, listener: str) -> dict[str, float]:
        """Return how often a listener has refused, by bound."""
        text = httpx.get(f"http://{self.world.addresses['metrics']}/metrics", timeout=PATIENCE).text
        found = re.findall(
            rf'pool_admission_refused_total{{bound="([a-z_]+)",listener="{listener}"}} ([0-9.e+]+)', text
        )
        return {bound: float(number) for bound, number in found}

    @contextmanager
    def flat(self) -> Iterator[None]:
        """Fail if the gateway's memory grows much within the block, at any time."""
        process = self.gateway
        before, highest = process.memory_info().rss, [0]
        loop_end = [False]

        def look() -> None:
            while not loop_end[0]:
                highest[0] = max(highest[0], process.memory_info().rss)
                time.sleep(0.02)

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            loop_end[0] = True
            thread.join()
        assert highest[0] - before < FLAT, f"{(highest[0] - before) / MIB:.0f} MiB more"


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool.start(LIMITS) as made:
        yield made


# --- HTTP: bodies, headers, connections


def tls(world: World) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(world.data / "ca" / "authority.crt"))


def connect(pool: Pool, listener: str, address: str | None = None) -> socket.socket:
    host, port = (address or pool.world.addresses[listener]).rsplit(":", 1)
    plain = socket.create_connection((host, int(port)), PATIENCE)
    return plain if listener == "metrics" else tls(pool.world).wrap_socket(plain, server_hostname="localhost")


def send_chunks(connection: socket.socket, total: int) -> tuple[int, bytes]:
    """Send a chunked body as long as it is taken; return how much was sent, and the answer."""
    part = b"x" * 65_536
    chunk = b"%x\r\n%s\r\n" % (len(part), part)
    sent = 0
    with suppress(OSError):
        while sent < total:
            connection.sendall(chunk)
            sent += len(part)
        connection.sendall(b"0\r\n\r\n")
    answer = b""
    with suppress(OSError):
        while more := connection.recv(65_536):
            answer += more
    return sent, answer


@pytest.mark.counted
@pytest.mark.parametrize(
    ("listener", "path"),
    [
        ("http", "/v1/requests"),
        ("http", "/v1/departments"),
        ("http", "/nothing"),
        ("registry", "/subjects/a/versions"),
        ("registry", "/nothing"),
        ("metrics", "/metrics"),
    ],
)
def test_a_chunked_body_of_an_unknown_caller_is_refused_after_a_few_bytes(pool: Pool, listener: str, path: str) -> None:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    with pool.flat(), connect(pool, listener) as connection:
        connection.sendall(head.encode())
        sent, answer = send_chunks(connection, count(400, 150) * MIB)
    assert sent < 32 * MIB, f"{sent / MIB:.0f} MiB were taken"  # what the two sockets hold, and a second of the line
    assert not answer or answer.split(b" ")[1] in {b"401", b"404", b"405", b"422"}


def test_a_known_caller_s_body_is_bounded_by_its_route(pool: Pool) -> None:
    token = pool.world.root._headers["authorization"]
    url = f"https://{pool.world.addresses['http']}/v1"

    def parts(total: int) -> Iterator[bytes]:
        for _ in range(total // 65_536):
            yield b" " * 65_536

    with httpx.Client(verify=tls(pool.world), headers={"authorization": token}, timeout=PATIENCE) as http:
        answer = http.post(f"{url}/departments", content=parts(MIB))
        assert (answer.status_code, answer.json()["reason"]) == (422, Reason.REQUEST_INVALID)
        assert "65536 bytes at most" in answer.json()["detail"]
        answer = http.post(f"{url}/requests", content=parts(4 * MIB))
        assert "2097152 bytes at most" in answer.json()["detail"]
        # What a route takes, it takes in chunks too: this one is no JSON, and nothing else is wrong with it.
        answer = http.post(f"{url}/requests", content=parts(MIB), headers={"content-type": "application/json"})
        assert "bytes at most" not in answer.text
    assert pool.refused("http")["body"] >= 2


@pytest.mark.parametrize("listener", ["http", "registry", "metrics"])
def test_headers_without_an_end_are_refused(pool: Pool, listener: str) -> None:
    with pool.flat(), connect(pool, listener) as connection:
        sent = 0
        with suppress(OSError):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: ")
            while sent < count(400, 100) * MIB:
                connection.sendall(b"x" * 65_536)
                sent += 65_536
        answer = b""
        with suppress(OSError):
            answer = connection.recv(1000)
    assert sent < 32 * MIB
    assert not answer or b" 431 " in answer


def test_an_address_that_opens_connections_leaves_places_for_others(pool: Pool) -> None:
    """Connections without a handshake, as many as there are places; other addresses are served meanwhile."""
    host, port = pool.world.addresses["http"].rsplit(":", 1)
    with ExitStack() as held:
        mute = []
        for _ in range(450):
            one = held.enter_context(socket.socket())
            one.bind(("127.0.0.2", 0))
            one.settimeout(PATIENCE)
            one.connect((host, int(port)))
            mute.append(one)
        wait_for(lambda: pool.refused("http").get("connections_source", 0) >= 390, "connections are refused")
        assert pool.world.root.get("/departments")
        still = 0
        for one in mute:
            one.settimeout(0.01)
            try:
                still += one.recv(1) != b""
            except TimeoutError:
                still += 1
            except OSError:
                pass
        assert 0 < still <= 60


# --- gRPC


@contextmanager
def attack(address: str, pool: Pool, identity: Identity | None) -> Iterator[OpenCalls]:
    attacking = OpenCalls(address, (pool.world.data / "ca" / "authority.crt").read_bytes(), identity)
    try:
        yield attacking
    finally:
        attacking.close()


def test_large_messages_at_the_enrolment_port_are_not_taken(pool: Pool) -> None:
    message = enrolment_pb2.EnrolRequest(token="x" * 11 * MIB).SerializeToString()
    with pool.flat(), attack(pool.world.addresses["enrolment"], pool, None) as attacking:
        attacking.open(ENROL, 32, first=message, channels=8)
        wait_for(lambda: not attacking.running, "all calls have ended")
        assert set(attacking.ended) == {grpc.StatusCode.RESOURCE_EXHAUSTED}, Counter(attacking.ended)


def test_calls_at_the_enrolment_port_that_send_nothing_keep_nobody_from_enrolling(pool: Pool) -> None:
    with from_address("127.0.0.3", pool.world.addresses["enrolment"]) as address, attack(address, pool, None) as mute:
        mute.open(ENROL, 300, channels=100)
        assert pool.attacker.enrol("beside").connector == "beside"
        wait_for(lambda: pool.refused("enrolment").get("rate", 0) >= 200, "calls beyond the rate are refused")


@pytest.mark.counted
def test_watches_of_a_connector_end_with_its_certificate_and_lock_nobody_out(pool: Pool) -> None:
    identity = pool.identity("watcher")
    with attack(pool.world.addresses["gateway"], pool, identity) as watching:
        watching.open(WATCH, count(2_000, 2 * STREAMS), first=b"", channels=8)
        pool.exchange()
        wait_for(lambda: watching.running <= 8, "no more than 8 health streams of a certificate")
        assert watching.running == 8
        assert set(watching.ended) == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        watching.open(REFLECT, 8, channels=2)
        wait_for(lambda: watching.running == 8, "reflection counts too")

        body = {"department": identity.department, "connector": "watcher", "reason": "a test"}
        pool.world.root.post("/connectors/revocations", body)
        wait_for(lambda: not watching.running, "the streams end with the certificate")
        before = len(watching.ended)
        watching.open(WATCH, count(2_000, STREAMS), first=b"", channels=8)
        watching.open(PUBLISH, 100, channels=2)
        pool.exchange()
        wait_for(lambda: not watching.running, "a revoked certificate has no open call")
        late = Counter(watching.ended[before:])
        assert set(late) <= {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.RESOURCE_EXHAUSTED}, late
        assert late[grpc.StatusCode.PERMISSION_DENIED]
    found = pool.world.root.get("/audit/entries", {"decision": "deny", "limit": 1000})
    entries = [one["entry"] for one in found]
    reasons = {entry["reason"] for entry in entries if (entry.get("actor") or {}).get("id") == "watcher"}
    assert Reason.CERTIFICATE_REVOKED in reasons


def test_one_department_with_many_certificates_does_not_have_all_places(pool: Pool) -> None:
    with ExitStack() as stack:
        attackers = [
            stack.enter_context(attack(pool.world.addresses["gateway"], pool, pool.identity(f"many-{number}")))
            for number in range(4)
        ]
        for one in attackers:
            one.open(FETCH, STREAMS // 2, channels=4)
            pool.exchange()
        settled = lambda: sum(one.running for one in attackers) <= STREAMS // 2  # noqa: E731
        wait_for(settled, "a department has half of the places at most")
        pool.exchange()
        for one in attackers:
            assert set(one.ended) <= {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INVALID_ARGUMENT}
        assert pool.refused("grpc")["calls_department"]


def test_a_message_that_is_larger_than_its_call_needs_is_refused(pool: Pool) -> None:
    request = wire.FetchRequest(header=wire.RequestHeader(purpose="x" * 11 * MIB)).SerializeToString()
    with pool.flat(), attack(pool.world.addresses["gateway"], pool, pool.identity("large")) as large:
        large.open(FETCH, 24, first=request, channels=4)
        pool.exchange()
        wait_for(lambda: not large.running, "all calls have ended")
        assert set(large.ended) <= {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED}
