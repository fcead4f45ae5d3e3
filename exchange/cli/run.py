"""Commands of a pool on its own machine: make it, run it, look at it, upgrade it; the demonstration."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exchange.cli.output import print_json, print_line, print_lines, print_progress, write_text
from exchange.server.roles import Role
from schemas.errors import InvalidError, Reason

if TYPE_CHECKING:
    from exchange.config import Config

__all__ = ["Data", "add_to"]

_EXIT_CODES = {"healthy": 0, "degraded": 1, "not_running": 2}
Data = Annotated[Path, typer.Option("--data", help="the pool's folder", envvar="POOL_DATA")]


def add_to(app: typer.Typer) -> None:
    """Register the commands with the program."""
    app.command("init")(init_command)
    app.command("serve")(serve_command)
    app.command("status")(status_command)
    app.command("alarms")(alarms_command)
    app.command("migrate")(migrate_command)
    app.command("renew-receipts-key")(renew_receipts_key_command)
    app.command("demo")(demo_command)


def init_command(
    data: Data,
    pool_id: Annotated[
        str, typer.Option(help="short lower-case name, in every certificate and entry; it can never change")
    ],
    host: Annotated[str, typer.Option(help="host name of the gateway, as departments reach it")] = "localhost",
    origin: Annotated[str | None, typer.Option(help="name of the audit log; <host>/audit if not given")] = None,
    database: Annotated[
        str | None, typer.Option(help="${file:PATH} or ${env:NAME} with the address; embedded if not given")
    ] = None,
) -> None:
    """Make a pool: keys, certificate authority, database tables, first account."""
    from exchange.server.initialise import initialise

    config = initialise(data, pool_id=pool_id, host=host, origin=origin, database=database)
    print_line(f"pool {config.pool_id} made in {config.folder}")
    print_line(f"  first account   bootstrap (data authority); its token is in {config.path('bootstrap-token')}")
    print_line(f"  log             {config.origin}; give {config.path('log.pub')} to those who verify it")
    print_line(
        f"  keys            {config.path('secrets')}: back them up; without them pseudonyms are lost permanently"
    )
    print_line(f"next: pool serve --data {data}")


def serve_command(
    data: Data,
    role: Annotated[list[Role] | None, typer.Option(help="gateway, registry, sequencer; all if not given")] = None,
    dev: Annotated[
        bool,
        typer.Option(
            "--dev", help="make and run a pool for development: loopback only, registry without authentication"
        ),
    ] = False,
    registry_port: Annotated[int, typer.Option(help="with --dev; 0 = any")] = 0,
    grpc_port: Annotated[int, typer.Option(help="with --dev; 0 = any")] = 0,
    http_port: Annotated[int, typer.Option(help="with --dev; 0 = any")] = 0,
    child: Annotated[str, typer.Option(hidden=True, help="process beside another, which starts it")] = "",
) -> None:
    """Run the pool until SIGTERM: all roles in one process, or some of them.

    With `processes = "several"` in pool.toml the control API and the registry run in processes of their own, which this
    one starts and watches. It ends with 75 when the embedded PostgreSQL, or one of these processes, has ended and could
    not be started again for a while.
    """
    import asyncio

    import pyarrow as pa
    import uvloop

    from exchange.cli.process_log import log_to_stderr
    from exchange.config import Config
    from exchange.identity.authority import Authority
    from exchange.server.composition import App
    from exchange.server.initialise import check_server_certificate, renew_server_certificate
    from exchange.server.listeners import serve
    from exchange.server.roles import CHILDREN, FIRST, WHOLE, Part, keys_of
    from exchange.server.supervision.child_processes import end_with_parent
    from schemas import failpoints
    from schemas.process import allocator

    log_to_stderr()
    if child and child not in CHILDREN:
        raise InvalidError(
            Reason.CONFIG_INVALID, f"--child: got {child[:40]!r}; expected one of {', '.join(sorted(CHILDREN))}"
        )
    if child:
        end_with_parent()
    if dev:
        _initialise_dev(data, {"registry": registry_port, "grpc": grpc_port, "http": http_port})
    config = Config.load(data)
    if config.dev and not dev and not child:
        raise InvalidError(
            Reason.CONFIG_INVALID,
            f"{data} was made by --dev, whose registry has no authentication; make a pool with `pool init`",
        )
    if child:
        part, config = CHILDREN[child], config.of_child(child)
    elif role:
        part = Part.of_roles(role)
        config = config.of_roles(part.roles)
    else:
        part = FIRST if config.processes == "several" else WHOLE
        config = config.of_roles(part.roles)
    roles = part.roles
    _require_loopback(config)
    failpoints.arm(allowed=config.failpoints)
    allocator.limit_arenas()
    pa.set_memory_pool(pa.system_memory_pool())
    if "ca/authority.key" in keys_of(roles).files:
        renew_server_certificate(config, Authority.load(config.path("ca"), config.pool_id))
    elif "ca/server.key" in keys_of(roles).files:
        check_server_certificate(config)
    app = App.open(config, roles=roles, own_database=part.owner, engines=part.serves_records)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            code = runner.run(serve(app, part, _print_ready))
    finally:
        app.close()
    if code:
        raise typer.Exit(code)


def migrate_command(data: Data) -> None:
    """Upgrade the database to the revision of this program. The pool must not be running."""
    from exchange.config import Config
    from exchange.server.initialise import migrate

    done = migrate(Config.load(data), _print_tagged if sys.stderr.isatty() else lambda *_: None)
    for line in done.lines():
        print_line(line)
    print_line("the database is at the newest revision")


def renew_receipts_key_command(
    data: Data,
    confirmed: Annotated[bool, typer.Option("--every-connector-will-stop", help="confirm it")] = False,
) -> None:
    """Replace a lost or stolen key that signs receipts. The pool must not be running.

    Connectors keep the public key that they have seen, as proof of what was accepted. Each stops at its next run until
    its department has confirmed with you that the key was replaced, and has archived its ledger. Earlier receipts can
    be verified with the old key only; if it is still there, it is kept beside the new one.
    """
    from exchange.config import Config
    from exchange.server.initialise import renew_receipts_key

    config = Config.load(data)
    if not confirmed:
        raise InvalidError(
            Reason.CONFIG_INVALID,
            "every connector will stop until its department has confirmed the new key and archived its ledger; "
            "restore the old key from the backup if you can, else repeat with --every-connector-will-stop",
        )
    public = renew_receipts_key(config)
    print_line(f"receipts are signed with the key {public.hex()} from the next start on")
    print_line("give it to every department through another channel than the pool; copy secrets/ to the backup of keys")


def status_command(
    data: Data, as_json: Annotated[bool, typer.Option("--json", help="as a JSON document")] = False
) -> None:
    """Show the pool on this machine at a glance, whether it runs or not; reads no key and needs no account.

    It ends with 0 when the pool works, 1 when a check fails or a critical alarm is open, 2 when no process runs.
    """
    from exchange.config import Config
    from exchange.monitoring.status import read_status
    from exchange.monitoring.status_text import status_lines

    found = read_status(Config.load(data))
    if as_json:
        print_json(found.document())
    else:
        print_lines(status_lines(found))
    raise typer.Exit(_EXIT_CODES[found.health])


def alarms_command(
    prometheus: Annotated[bool, typer.Option("--prometheus", help="as a file of rules")] = False,
) -> None:
    """List the alarms (告警), with what to do about each."""
    from exchange.monitoring.alarms import ALARMS
    from exchange.monitoring.prometheus_rules import rules

    if prometheus:
        write_text(rules())
        return
    for one in ALARMS:
        print_line(f"{one.severity:<9} {one.name}: {one.meaning}; docs/runbook.md#{one.section}")


def demo_command(
    keep: Annotated[bool, typer.Option("--keep", help="keep everything running at the end")] = False,
    persons: Annotated[int, typer.Option(min=100, help="number of invented persons")] = 20_000,
) -> None:
    """Run a demonstration with three invented departments: publish, refuse, approve, fetch, follow changes, verify."""
    from exchange.demo.story import run_demo

    raise typer.Exit(run_demo(keep=keep, persons=persons))


def _print_tagged(topic: str, done: int, blocks: int) -> None:
    print_progress(f"tags of {topic}: {done:,} of {blocks:,} blocks", last=done >= blocks)


def _initialise_dev(data: Path, ports: dict[str, int]) -> None:
    from exchange.config import Config
    from exchange.server.initialise import initialise

    if (data / "pool.toml").exists():
        if not Config.load(data).dev:
            raise InvalidError(
                Reason.CONFIG_INVALID, f"{data} is the folder of a real pool; --dev needs a folder of its own"
            )
        return
    listen = {name: f"127.0.0.1:{port}" for name, port in {**ports, "enrolment": 0}.items()}
    initialise(data, pool_id="dev", listen=listen, dev=True)


def _require_loopback(config: "Config") -> None:
    if not config.dev:
        return
    for name in ("grpc", "enrolment", "http", "registry"):
        address: str = getattr(config.listen, name)
        if address.rsplit(":", 1)[0] not in {"127.0.0.1", "localhost", "[::1]"}:
            raise InvalidError(
                Reason.CONFIG_INVALID, f"listen.{name}: got {address}; --dev serves on loopback and nowhere else"
            )


def _print_ready(addresses: dict[str, str]) -> None:
    """Print one line when every listener is ready; scripts wait for it."""
    print_line("ready " + json.dumps(addresses, sort_keys=True), flush=True)
