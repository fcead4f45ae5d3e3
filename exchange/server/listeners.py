"""The listeners and the background work of a process, by role.

    gateway     gRPC (mutual TLS), enrolment, control API; sweeper, timer of grants, folded denials
    registry    Confluent's REST API
    sequencer   gives audit entries their places, signs checkpoints

`pool serve` runs all of them in one process. On SIGTERM or SIGINT the doors close first, calls under way get a few
seconds, folded denials are written, and what this process started is stopped.
"""

import asyncio
import contextlib
import json
import math
import os
import signal
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import structlog
import uvicorn
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from exchange import metrics
from exchange.api import health as health_api
from exchange.api import http
from exchange.api.certificates import CertificateProtocol
from exchange.api.enrolment import EnrolmentServicer, RenewalServicer
from exchange.api.grpc import ExchangeServicer
from exchange.api.long_poll import TopicGrowth
from exchange.api.registry_api import registry_api
from exchange.broker.port import LaneFault
from exchange.server import allocator
from exchange.server.clock import microseconds
from exchange.server.composition import App
from exchange.server.startup_retry import retry_until_available
from registry.rest.middleware import ProtocolMiddleware
from schemas.errors import InvalidError, PoolError, Reason, UnavailableError
from schemas.proto.pool.v1 import enrolment_pb2, enrolment_pb2_grpc, exchange_pb2, exchange_pb2_grpc

__all__ = ["Role", "serve"]

_log = structlog.get_logger()
_GRACE = 5.0  # seconds for calls under way when the doors close
_COUNT_KEPT = 10.0  # seconds for which a count of waiting entries is told
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
_MESSAGE_LIMIT = 12 * 1024 * 1024  # bytes: a batch has 8 MiB, and its envelope


class Role(StrEnum):
    """What a process does."""

    GATEWAY = "gateway"
    REGISTRY = "registry"
    SEQUENCER = "sequencer"


async def serve(app: App, roles: frozenset[Role], ready: Callable[[dict[str, str]], None]) -> None:
    """Listen and work until SIGTERM or SIGINT; *ready* is called once with every listener's address.

    Raises:
        InvalidError: CONFIG_INVALID, an address cannot be bound, or a plain listener is not on loopback.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        for number in (signal.SIGTERM, signal.SIGINT):  # else a second one is swallowed while the rest is closed
            stack.callback(loop.remove_signal_handler, number)
        threads = ThreadPoolExecutor(app.config.limits.threads, thread_name_prefix="call")
        stack.callback(threads.shutdown, wait=False, cancel_futures=True)
        if Role.SEQUENCER in roles:
            await stack.enter_async_context(_in_thread(app, "sequencer", _sequence))
        if Role.GATEWAY in roles:
            await _reconcile(app, stop)
            await stack.enter_async_context(_gateway(app, threads))
            await stack.enter_async_context(_web(app, "http", http.create(app.pool)))
            await stack.enter_async_context(_in_thread(app, "sweeper", _sweep))
        if Role.REGISTRY in roles:
            await stack.enter_async_context(_web(app, "registry", _registry_api(app)))
        if app.schemas_topic is not None:
            await stack.enter_async_context(_in_thread(app, "schemas", _publish_schemas))
        if app.config.listen.metrics is not None:
            await stack.enter_async_context(_web(app, "metrics", health_api.create(app.pool), plain=True))
        _write_addresses(app)
        allocator.freeze_startup_objects()
        ready(dict(app.addresses))
        await stop.wait()
        _log.info("stopping")


async def _reconcile(app: App, stop: asyncio.Event) -> None:
    """Make the topics that are missing, as soon as the broker is there; give up when told to stop meanwhile."""

    def pause(seconds: float) -> None:
        time.sleep(seconds)
        if stop.is_set():
            raise UnavailableError(Reason.SHUTTING_DOWN, "told to stop while the start waited")

    await asyncio.to_thread(retry_until_available, app.pool.administration.reconcile_topics, sleep=pause)


@asynccontextmanager
async def _gateway(app: App, threads: ThreadPoolExecutor) -> AsyncIterator[None]:
    limits = app.config.limits
    tails = TopicGrowth(app.broker)
    options = [
        ("grpc.max_receive_message_length", _MESSAGE_LIMIT),
        ("grpc.max_send_message_length", 2 * _MESSAGE_LIMIT),
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
    ]
    identity = _server_identity(app, app.config.listen.grpc)
    mutual = grpc.ssl_server_credentials(
        [identity], root_certificates=app.authority.certificate, require_client_auth=True
    )
    server = grpc.aio.server(options=options, maximum_concurrent_rpcs=limits.streams)
    servicer = ExchangeServicer(
        app.pool,
        threads,
        tails,
        max_queued=4 * limits.threads + limits.streams,
        waiting=limits.waiting_mb * 1024 * 1024,
    )
    exchange_pb2_grpc.add_ExchangeServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]  # generated

    def gateway() -> str:
        return app.addresses["gateway"]

    renewal = RenewalServicer(app.pool, threads, gateway)
    enrolment_pb2_grpc.add_RenewalServicer_to_server(renewal, server)  # type: ignore[no-untyped-call]  # generated
    alive = health.aio.HealthServicer()  # type: ignore[attr-defined]  # the stubs lack it
    health_pb2_grpc.add_HealthServicer_to_server(alive, server)
    names = (
        exchange_pb2.DESCRIPTOR.services_by_name["Exchange"].full_name,
        enrolment_pb2.DESCRIPTOR.services_by_name["Renewal"].full_name,
        health.SERVICE_NAME,
        reflection.SERVICE_NAME,
    )
    reflection.enable_server_reflection(names, server)
    await alive.set("", health_pb2.HealthCheckResponse.SERVING)
    port = _bind(server, app.config.listen.grpc, mutual)
    app.addresses["grpc"] = _address(app.config.listen.grpc, port)
    app.addresses["gateway"] = _address(app.config.gateway, port)

    welcome = grpc.aio.server(options=options, maximum_concurrent_rpcs=64)
    enrolment = EnrolmentServicer(app.pool, threads, gateway)
    enrolment_pb2_grpc.add_EnrolmentServicer_to_server(enrolment, welcome)  # type: ignore[no-untyped-call]  # generated
    port = _bind(welcome, app.config.listen.enrolment, grpc.ssl_server_credentials([identity]))
    app.addresses["enrolment"] = _address(app.config.listen.enrolment, port)
    await server.start()
    await welcome.start()
    try:
        yield
    finally:
        await alive.enter_graceful_shutdown()
        await asyncio.gather(server.stop(_GRACE), welcome.stop(_GRACE))
        tails.close()


@asynccontextmanager
async def _web(app: App, name: str, asgi: Any, *, plain: bool = False) -> AsyncIterator[None]:
    """Serve an ASGI app over TLS; plain HTTP only on loopback, for --dev and for metrics."""
    listen: str = getattr(app.config.listen, name)
    host, port = listen.rsplit(":", 1)
    plain = plain or app.config.dev
    if plain and host not in _LOOPBACK:
        raise InvalidError(Reason.CONFIG_INVALID, f"listen.{name}: got {listen} without TLS; expected loopback")
    files: dict[str, Any] = {}
    if not plain:
        key, certificate = _server_files(app)
        files = {"ssl_keyfile": str(key), "ssl_certfile": str(certificate)}
        if name == "registry":  # a connector may show its certificate instead of a token
            files |= {
                "ssl_ca_certs": str(app.config.path("ca", "authority.crt")),
                "ssl_cert_reqs": ssl.CERT_OPTIONAL,
                "http": CertificateProtocol,
            }
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    # The protocol is named since asyncio turns Nagle's delay off only where it is.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host.strip("[]"), int(port)))
    except OSError as error:
        bound.close()
        raise InvalidError(
            Reason.CONFIG_INVALID, f"listen.{name}: {listen} cannot be bound: {error.strerror}"
        ) from error
    config = uvicorn.Config(
        asgi,
        log_config=None,
        access_log=False,
        lifespan="off",
        proxy_headers=False,  # nothing asks where a call seems to come from
        timeout_graceful_shutdown=3,
        **files,
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]  # signals are ours
    task = asyncio.create_task(server.serve(sockets=[bound]))
    while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn tells it by this flag alone
        await asyncio.sleep(0.01)
    app.addresses[name] = _address(listen, bound.getsockname()[1])
    try:
        yield
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def _in_thread(app: App, name: str, work: Callable[[App, threading.Event], None]) -> AsyncIterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=work, args=(app, stop), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        await asyncio.to_thread(thread.join, _GRACE)


class _Progress:
    """How far the sequencer has come, told to the metrics when they are read: who has died cannot set a gauge.

    The age goes on rising from the last good step, and the number is unknown (NaN) when it was not counted lately.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._done = clock()  # what was durable at this moment is signed, as far as is known
        self._counted: tuple[float, int] | None = None

    def counted(self, count: int, age: float, *, good: bool) -> None:
        """Take note of what waits, its oldest entry *age* seconds old; *good*: the step before succeeded."""
        now = self._clock()
        self._counted = (now, count)
        # Places are given before anything is signed: after a step that failed, nothing waiting proves nothing.
        self._done = now - age if good else min(self._done, now - age)

    def age(self) -> float:
        """Return the seconds for which an entry may have waited without a signature."""
        return max(0.0, self._clock() - self._done)

    def entries(self) -> float:
        """Return the number of entries that wait; NaN when nobody has counted for ten seconds."""
        if self._counted is None or self._clock() - self._counted[0] > _COUNT_KEPT:
            return math.nan
        return self._counted[1]


def _sequence(app: App, stop: threading.Event) -> None:
    progress = _Progress()
    metrics.UNSEQUENCED_AGE.set_function(progress.age)
    metrics.UNSEQUENCED_ENTRIES.set_function(progress.entries)
    while not stop.is_set():
        good = False
        try:
            metrics.CHECKPOINT_SIZE.set(app.sequencer.step().size)
            good = True
        except PoolError as error:
            metrics.SEQUENCER_FAILURES.labels(error.reason).inc()
            _log.error("sequencer_failed", reason=error.reason, message=error.message)
        except Exception as error:  # noqa: BLE001 - a thread that ends here would end the log's growth with it
            metrics.SEQUENCER_FAILURES.labels(Reason.INTERNAL).inc()
            _failed("sequence", error)
        try:
            waiting = app.log.backlog()
            age = 0 if waiting.oldest is None else max(0, microseconds() - waiting.oldest)
            progress.counted(waiting.count, age / 1_000_000, good=good)
        except PoolError as error:
            _log.warning("upkeep_failed", task="backlog", reason=error.reason)
        except Exception as error:  # noqa: BLE001 - see above
            _failed("backlog", error)
        stop.wait(1.0)


def _publish_schemas(app: App, stop: threading.Event) -> None:
    """Send what the registry's outbox holds to the topic of schemas, as long as something waits."""
    topic = app.schemas_topic
    while topic is not None and not stop.is_set():
        sent = 0
        try:
            sent = topic.step()
        except PoolError as error:
            metrics.SCHEMAS_TOPIC_FAILURES.labels(error.reason).inc()
            _log.warning("schemas_topic_failed", reason=error.reason, message=error.message)
        except Exception as error:  # noqa: BLE001 - the next turn may find what this one missed
            metrics.SCHEMAS_TOPIC_FAILURES.labels(Reason.INTERNAL).inc()
            _failed("schemas", error)
        if not sent:
            stop.wait(1.0)


def _sweep(app: App, stop: threading.Event) -> None:
    """Every 10 s: missing receipts, grants whose time is over; every minute: folded denials."""
    turns = 0
    while not stop.is_set():
        tasks: list[tuple[str, Callable[[], Any]]] = [
            ("sweep", partial(_swept, app)),
            ("expire", app.pool.granting.expire),
        ]
        if turns % 6 == 0:
            tasks.append(("flush", app.enforcer.flush))
        for name, task in tasks:
            try:
                found = task()
                if name == "sweep" and found:
                    metrics.RECOVERED_RECEIPTS.inc(found)
                    _log.warning("receipts_recovered", count=found)
            except PoolError as error:
                _log.warning("upkeep_failed", task=name, reason=error.reason)
            except Exception as error:  # noqa: BLE001 - one task's defect must not end the others forever
                _failed(name, error)
        turns += 1
        stop.wait(10.0)


def _swept(app: App) -> int:
    """Write missing receipts; log and count the lanes that cannot be read."""
    faults = 0

    def report(fault: LaneFault) -> None:
        nonlocal faults
        faults += 1
        _log.error("lane_unreadable", lane=fault.name, reason=fault.error.reason, message=fault.error.message)

    try:
        return app.pool.recovery.sweep(report)
    finally:
        metrics.LANES_UNREADABLE.set(faults)


def _failed(task: str, error: Exception) -> None:
    """Log the kind alone of an error that nobody foresaw: its text may hold a statement's values."""
    _log.error("upkeep_failed", task=task, error=type(error).__name__)


def _registry_api(app: App) -> ProtocolMiddleware:
    return registry_api(
        app.pool, config=app.config, subjects=app.subjects, catalogue=app.catalogue, approvals=app.approvals
    )


def _server_files(app: App) -> tuple[Path, Path]:
    """Return the listener's key and certificate, made again when they are missing or within a month of their end."""
    return app.config.path("ca", "server.key"), app.config.path("ca", "server.crt")


def _server_identity(app: App, listen: str) -> tuple[bytes, bytes]:
    del listen
    key, certificate = _server_files(app)
    return key.read_bytes(), certificate.read_bytes()


def _bind(server: Any, listen: str, credentials: Any) -> int:
    try:
        port: int = server.add_secure_port(listen, credentials)
    except RuntimeError as error:
        raise InvalidError(Reason.CONFIG_INVALID, f"{listen} cannot be bound; is another pool running?") from error
    return port


def _address(listen: str, port: int) -> str:
    """Return the address as configured, its port the one that was bound where 0 was asked for."""
    host, asked = listen.rsplit(":", 1)
    return f"{host}:{port}" if asked == "0" else listen


def _write_addresses(app: App) -> None:
    """Write down where this process listens, for the command line on the same machine.

    Roles that run apart on one folder add theirs to what the others wrote.
    """
    if not app.addresses:
        return
    file = app.config.path("ports.json")
    known = json.loads(file.read_text()) if file.exists() else {}
    part = file.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps({**known, **app.addresses}, indent=2) + "\n")
    part.rename(file)
