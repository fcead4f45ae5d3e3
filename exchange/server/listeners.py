"""Listeners of a process (gRPC, HTTP, REST, metrics), by role, and their shutdown.

    gateway     gRPC (mutual TLS), enrolment, control API; sweeper, expiry of grants, aggregated denials
    registry    Confluent's REST API
    sequencer   gives audit entries their index in the log, signs checkpoints

`pool serve` runs all of them in one process, or as its configuration says the control API with enrolment and the
registry in processes beside (`exchange.server.supervision.child_processes`); the loops are in
`exchange.server.background`. On SIGTERM or SIGINT the
listeners close first, running calls get a few seconds, aggregated denials are written, and what this process started
is stopped.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
import structlog
import uvicorn
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from exchange.api import health as health_api
from exchange.api import http
from exchange.api.admission.grpc_calls import SMALL_MESSAGE, CallBounds, ConnectorAdmission, EnrolmentAdmission
from exchange.api.admission.http_protocol import BoundedProtocol
from exchange.api.admission.http_server import HANDSHAKE_SECONDS, BoundedServer, connection_limiter
from exchange.api.admission.publish_backpressure import FLOW_CONTROL
from exchange.api.admission.scheduler import FairScheduler
from exchange.api.enrolment import EnrolmentServicer, RenewalServicer
from exchange.api.grpc import ExchangeServicer
from exchange.api.long_poll import TopicGrowth
from exchange.api.record_polls import RecordPolls
from exchange.api.records import RecordCalls
from exchange.api.registry.application import registry_api
from exchange.api.registry.protocol import RegistryProtocol
from exchange.audit.tiles import TileFiles
from exchange.config import with_port
from exchange.records.traffic.counts import TRAFFIC
from exchange.server import background, row_watch
from exchange.server.clock import utc_now
from exchange.server.composition import App
from exchange.server.roles import Part, Role
from exchange.server.row_digest import keep_digests
from exchange.server.supervision import host_facts
from exchange.server.supervision.child_processes import beside
from exchange.server.supervision.process_health import supervised
from exchange.server.supervision.startup_retry import retry_until_available
from registry.rest.app import RestApplication
from schemas.errors import InvalidError, Reason, UnavailableError
from schemas.process import allocator
from schemas.proto.pool.v1 import enrolment_pb2, enrolment_pb2_grpc, exchange_pb2, exchange_pb2_grpc

__all__ = ["serve"]

_log = structlog.get_logger()
_GRACE = 5.0  # seconds for running calls when the listeners close
# Threads that compute take turns at the interpreter. A call that waited for the database waits for a turn again, so a
# short call beside long ones takes as many of these as it has queries; the interpreter's own 5 ms would be most of it.
_SWITCH_SECONDS = 0.0005
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
_MESSAGE_LIMIT = 12 * 1024 * 1024  # bytes: a batch has 8 MiB, and its envelope
_STREAMS_OF_CONNECTION = 1000
_ENROLMENT_STREAMS = 4  # of one connection
_ENROLMENT_CALLS = 64


async def serve(app: App, part: Part, ready: Callable[[dict[str, str]], None]) -> int:
    """Serve until SIGTERM or SIGINT and return the exit code; *ready* is called once with every listener's address.

    The code is 0, or `GAVE_UP` where the embedded PostgreSQL, or a process beside this one, was given up.

    Raises:
        InvalidError: CONFIG_INVALID, an address cannot be bound, or a plain listener is not on loopback.
    """
    stop, roles = asyncio.Event(), part.roles
    sys.setswitchinterval(_SWITCH_SECONDS)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        for number in (signal.SIGTERM, signal.SIGINT):  # else a second signal is ignored while the rest is closed
            stack.callback(loop.remove_signal_handler, number)
        threads = ThreadPoolExecutor(app.config.limits.threads, thread_name_prefix="call")
        stack.callback(threads.shutdown, wait=False, cancel_futures=True)
        limits = app.config.limits
        scheduler = FairScheduler(
            threads,
            slots=limits.threads,
            share=limits.department_threads,
            contended=limits.contended_threads,
            limit=limits.department_waiting,
        )
        health = await stack.enter_async_context(supervised(app, roles, partial(loop.call_soon_threadsafe, stop.set)))
        await stack.enter_async_context(_signing(app, roles, stop))
        if Role.GATEWAY in roles:
            await _reconcile(app, stop)
            await stack.enter_async_context(_gateway_role(app, scheduler, part.listeners))
        if Role.REGISTRY in roles:
            await stack.enter_async_context(_web(app, "registry", _registry_api(app, scheduler)))
        if roles & {Role.GATEWAY, Role.REGISTRY}:
            flush = partial(background.flush_folds, app.pool.authentications, app.enforcer)
            await stack.enter_async_context(background.in_thread("folds", flush))
            rows = partial(row_watch.watch, app.row_watch)
            await stack.enter_async_context(background.in_thread("rows", rows))
        if Role.SEQUENCER in roles:
            digests = partial(keep_digests, app.row_digests)
            await stack.enter_async_context(background.in_thread("digests", digests))
            figures = partial(background.collect_figures, app.collector)
            await stack.enter_async_context(background.in_thread("figures", figures))
        if app.schemas_topic is not None:
            send = partial(background.send_schemas, app.schemas_topic)
            await stack.enter_async_context(background.in_thread("schemas", send))
        if app.config.listen.metrics is not None:
            host_facts.export(app.config)
            await stack.enter_async_context(
                _web(app, "metrics", health_api.create(health.live, health.ready), plain=True)
            )
        stack.enter_context(_published_addresses(app, part))
        addresses = dict(app.addresses)
        if part.children:
            bound = float(app.config.embedded.restart_seconds)
            end = partial(loop.call_soon_threadsafe, stop.set)
            beside_this = beside(app.config.folder, part.children, bound, end=end, is_stopping=stop.is_set)
            children = await stack.enter_async_context(beside_this)
            health.watch_children(children)
            addresses |= children.addresses
        allocator.freeze_startup_objects()
        ready(addresses)
        await stop.wait()
        _log.info("stopping")
    return health.exit_code


@asynccontextmanager
async def _signing(app: App, roles: frozenset[Role], stop: asyncio.Event) -> AsyncIterator[None]:
    """Sign the log, in a sequencer, and watch whether it is signed; wait for it before the listeners start."""
    async with AsyncExitStack() as stack:
        if Role.SEQUENCER in roles:
            TileFiles(app.config.path("log")).restrict_entries()
            await asyncio.to_thread(app.log_watch.look)  # the clock, before anything is signed
            sequence = partial(
                background.sequence,
                app.sequencer,
                app.log,
                report=app.log_watch.sequencer_reported,
                clock_fault=lambda: app.log_watch.clock_fault,
            )
            await stack.enter_async_context(background.in_thread("sequencer", sequence))
        await asyncio.to_thread(app.log_watch.wait_until_signed, stop.is_set)
        await stack.enter_async_context(background.in_thread("log", app.log_watch.watch))
        yield


async def _reconcile(app: App, stop: asyncio.Event) -> None:
    """Create the topics that are missing and carry out listed erasures as soon as the broker answers.

    Stop waiting when the process shall end.
    """

    def pause(seconds: float) -> None:
        time.sleep(seconds)
        if stop.is_set():
            raise UnavailableError(Reason.SHUTTING_DOWN, "told to stop while the start waited")

    await asyncio.to_thread(retry_until_available, app.pool.administration.reconcile_topics, sleep=pause)
    for step in (app.pool.erasures.retract_earlier, app.pool.erasures.replay):
        await asyncio.to_thread(retry_until_available, step, sleep=pause)


@asynccontextmanager
async def _gateway_role(app: App, scheduler: FairScheduler, listeners: frozenset[str]) -> AsyncIterator[None]:
    """Serve what a gateway has, and run its background loops, within the block."""
    await asyncio.to_thread(app.pool.accounts.finish_set_up)
    async with AsyncExitStack() as stack:
        records = await stack.enter_async_context(_gateway(app, scheduler, listeners))
        if "http" in listeners:
            api = http.create(app.pool, scheduler, requests=app.config.limits.requests, record_calls=records)
            await stack.enter_async_context(_web(app, "http", api))
        measure: list[tuple[str, Callable[[], object]]] = [
            ("lags", partial(TRAFFIC.lags.measure, app.broker)),
            ("connectors", app.pool.connectors.measure_unheard),
        ]
        sweep = partial(
            background.sweep,
            app.pool.recovery,
            app.pool.grants,
            clocks=app.pool.request_clocks,
            measure=measure,
            by_clock=[
                ("violations", app.pool.violation_detector.step),
                ("corrections", app.pool.correction_upkeep.overdue),
            ],
            clock_fault=lambda: app.log_watch.clock_fault,
        )
        await stack.enter_async_context(background.in_thread("sweeper", sweep))
        erasures = partial(background.carry_out_erasures, app.pool.erasures)
        await stack.enter_async_context(background.in_thread("erasures", erasures))
        corrections = partial(background.tell_of_corrections, app.pool.correction_upkeep)
        await stack.enter_async_context(background.in_thread("corrections", corrections))
        yield


@asynccontextmanager
async def _gateway(app: App, scheduler: FairScheduler, listeners: frozenset[str]) -> AsyncIterator[RecordCalls]:
    """Serve gRPC within the block, on those of its listeners; what is yielded serves the same records over HTTP."""
    limits = app.config.limits
    topic_growth = TopicGrowth(app.broker)
    admission = ConnectorAdmission(app.pool, scheduler, limits.streams)
    polls = RecordPolls(
        app.pool,
        scheduler,
        topic_growth,
        max_polls=limits.department_waiting,
        max_reply_bytes=limits.replies_mb * 1024 * 1024,
    )
    async with AsyncExitStack() as stack:
        stack.callback(topic_growth.close)
        servers: list[Any] = []
        stack.push_async_callback(_stop_servers, servers)
        if "grpc" in listeners:
            servers.append(await _records_server(app, scheduler, polls, admission, stack))
        if "enrolment" in listeners:
            servers.append(_enrolment_server(app, scheduler))
        for server in servers:
            await server.start()
        async with admission.watching():
            yield RecordCalls(app.pool, scheduler, polls, admission)


async def _stop_servers(servers: Sequence[Any]) -> None:
    await asyncio.gather(*(server.stop(_GRACE) for server in servers))


async def _records_server(
    app: App, scheduler: FairScheduler, polls: RecordPolls, admission: ConnectorAdmission, stack: AsyncExitStack
) -> Any:
    """Return the server of records and renewals, bound; its health service says that it ends when the stack ends."""
    limits = app.config.limits
    mutual = grpc.ssl_server_credentials(
        [_server_identity(app)], root_certificates=app.authority_certificate, require_client_auth=True
    )
    # The interceptor counts; the server's own limit is for calls that it refuses, which take a moment too.
    server = grpc.aio.server(
        options=_shared_options(_STREAMS_OF_CONNECTION, _MESSAGE_LIMIT),
        interceptors=[CallBounds(admission)],
        maximum_concurrent_rpcs=2 * limits.streams,
    )
    servicer = ExchangeServicer(app.pool, scheduler, polls, max_pending_bytes=limits.waiting_mb * 1024 * 1024)
    exchange_pb2_grpc.add_ExchangeServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]  # generated
    renewal = RenewalServicer(app.pool, scheduler, partial(_gateway_address, app))
    enrolment_pb2_grpc.add_RenewalServicer_to_server(renewal, server)  # type: ignore[no-untyped-call]  # generated
    health_servicer = health.aio.HealthServicer()  # type: ignore[attr-defined]  # the stubs lack it
    health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
    names = (
        exchange_pb2.DESCRIPTOR.services_by_name["Exchange"].full_name,
        enrolment_pb2.DESCRIPTOR.services_by_name["Renewal"].full_name,
        health.SERVICE_NAME,
        reflection.SERVICE_NAME,
    )
    reflection.enable_server_reflection(names, server)
    await health_servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    stack.push_async_callback(health_servicer.enter_graceful_shutdown)
    port = _bind(server, app.config.listen.grpc, mutual)
    app.addresses["grpc"] = with_port(app.config.listen.grpc, port)
    app.addresses["gateway"] = with_port(app.config.gateway, port)
    return server


def _enrolment_server(app: App, scheduler: FairScheduler) -> Any:
    """Return the server of enrolment, bound."""
    limits = app.config.limits
    server = grpc.aio.server(
        options=[
            *_shared_options(_ENROLMENT_STREAMS, SMALL_MESSAGE),
            ("grpc.max_connection_age_ms", 60_000),
            ("grpc.max_connection_age_grace_ms", 30_000),
        ],
        interceptors=[CallBounds(EnrolmentAdmission(_ENROLMENT_CALLS, limits.enrolments_per_minute))],
        maximum_concurrent_rpcs=4 * _ENROLMENT_CALLS,
    )
    enrolment = EnrolmentServicer(app.pool, scheduler, partial(_gateway_address, app))
    enrolment_pb2_grpc.add_EnrolmentServicer_to_server(enrolment, server)  # type: ignore[no-untyped-call]  # generated
    port = _bind(server, app.config.listen.enrolment, grpc.ssl_server_credentials([_server_identity(app)]))
    app.addresses["enrolment"] = with_port(app.config.listen.enrolment, port)
    return server


def _gateway_address(app: App) -> str:
    """Return the address of the gateway as connectors call it, of this process or of the one beside."""
    here = app.addresses.get("gateway")
    if here is None and app.config.gateway.endswith(":0"):
        here = str(json.loads(app.config.path("ports.json").read_text())["gateway"])
    return here or app.config.gateway


def _shared_options(streams: int, message: int) -> list[tuple[str, int]]:
    """Return the options of a gRPC server: calls of one connection, bytes of one message."""
    return [
        ("grpc.max_receive_message_length", message),
        ("grpc.max_send_message_length", 2 * _MESSAGE_LIMIT),
        ("grpc.max_concurrent_streams", streams),
        ("grpc.max_metadata_size", 16 * 1024),  # bytes; more is refused
        ("grpc.absolute_max_metadata_size", 32 * 1024),
        ("grpc.server_handshake_timeout_ms", int(1000 * HANDSHAKE_SECONDS)),
        ("grpc.max_connection_idle_ms", 300_000),  # without a call
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        *FLOW_CONTROL,
    ]


@asynccontextmanager
async def _web(app: App, name: str, asgi: Any, *, plain: bool = False) -> AsyncIterator[None]:
    """Serve an ASGI app over TLS; plain HTTP only on loopback, for --dev and for metrics."""
    listen: str = getattr(app.config.listen, name)
    host, port = listen.rsplit(":", 1)
    plain = plain or app.config.dev
    if plain and host not in _LOOPBACK:
        raise InvalidError(Reason.CONFIG_INVALID, f"listen.{name}: got {listen} without TLS; expected loopback")
    options: dict[str, Any] = {}
    limits = app.config.limits
    if not plain:
        key, certificate = _server_files(app)
        options |= {"ssl_keyfile": str(key), "ssl_certfile": str(certificate)}
        if name in {"registry", "http"}:  # a connector shows its certificate
            authority = app.config.path("ca", "authority.crt")
            options |= {"ssl_ca_certs": str(authority), "ssl_cert_reqs": ssl.CERT_OPTIONAL}
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    # The protocol is named because asyncio sets TCP_NODELAY only where it is.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((host.strip("[]"), int(port)))
    except OSError as error:
        bound.close()
        raise InvalidError(
            Reason.CONFIG_INVALID,
            f"listen.{name}: {listen} cannot be bound: {error.strerror}; roles that are processes of their own on one "
            f"machine have addresses of their own, in [roles.ROLE.listen]",
        ) from error
    config = uvicorn.Config(
        asgi,
        http=RegistryProtocol if name == "registry" else BoundedProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        lifespan="off",
        proxy_headers=False,  # nothing uses the address that a call claims to come from
        timeout_graceful_shutdown=3,
        **options,
    )
    server = BoundedServer(config, name, connection_limiter(limits.connections, limits.connections_per_source))
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]  # signals are ours
    task = asyncio.create_task(server.serve(sockets=[bound]))
    while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn reports it by this flag alone
        await asyncio.sleep(0.01)
    app.addresses[name] = with_port(listen, bound.getsockname()[1])
    try:
        yield
    finally:
        server.should_exit = True
        await task


def _registry_api(app: App, scheduler: FairScheduler) -> RestApplication:
    return registry_api(app.pool, scheduler, config=app.config, subjects=app.subjects, approvals=app.approvals)


def _server_files(app: App) -> tuple[Path, Path]:
    """Return the files of the listeners' key and certificate; `pool serve` renews them before it starts."""
    return app.config.path("ca", "server.key"), app.config.path("ca", "server.crt")


def _server_identity(app: App) -> tuple[bytes, bytes]:
    """Return the listeners' key and certificate, as PEM."""
    key, certificate = _server_files(app)
    return key.read_bytes(), certificate.read_bytes()


def _bind(server: Any, listen: str, credentials: Any) -> int:
    try:
        port: int = server.add_secure_port(listen, credentials)
    except RuntimeError as error:
        raise InvalidError(Reason.CONFIG_INVALID, f"{listen} cannot be bound; is another pool running?") from error
    return port


@contextmanager
def _published_addresses(app: App, part: Part) -> Iterator[None]:
    """Write this process's addresses to `ports.json` for the duration of the block, for commands on the same machine.

    Roles that run as processes of their own on one folder add theirs to what the others wrote: the addresses by
    listener, and under `processes` those of each role with its process id, since every role may listen for metrics.
    """
    if not app.addresses:  # a sequencer without metrics
        yield
        return
    process = {
        "pid": os.getpid(),
        "version": version("exchange-pool"),
        "started": utc_now().isoformat(),
        "addresses": dict(app.addresses),
    }
    mine = dict.fromkeys([part.name] if part.name else sorted(map(str, part.roles)), process)
    _change_ports(
        app.config.folder, lambda ports: {**ports, **app.addresses, "processes": {**_processes(ports), **mine}}
    )
    try:
        yield
    finally:
        _change_ports(app.config.folder, lambda ports: {**ports, "processes": _without(_processes(ports), mine)})


def _processes(ports: Mapping[str, Any]) -> dict[str, Any]:
    return dict(ports.get("processes", {}))


def _without(processes: Mapping[str, Any], mine: Mapping[str, Any]) -> dict[str, Any]:
    """Return the processes but this one; a role that another process serves by now stays."""
    return {role: one for role, one in processes.items() if one.get("pid") != os.getpid() or role not in mine}


def _change_ports(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change `ports.json` under a lock: of two processes that start at once, neither loses what the other wrote."""
    file, descriptor = folder / "ports.json", os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        ports = json.loads(file.read_text()) if file.exists() else {}
        temporary = file.with_suffix(f".{os.getpid()}.part")
        temporary.write_text(json.dumps(change(ports), indent=2) + "\n")
        temporary.rename(file)
    finally:
        os.close(descriptor)
