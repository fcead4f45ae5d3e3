"""`pool-connect`, the command line of a department's connector to the pool.

    pool-connect init    civil-affairs.yaml        a configuration from answers
    pool-connect draft-schema civil-affairs.yaml   an Avro schema from the table or file, to be confirmed
    pool-connect enrol TOKEN --identity identity/ --connector civil-affairs-drop
    pool-connect lint    civil-affairs.yaml        the file alone: no network, no secrets
    pool-connect check   civil-affairs.yaml        pool, grants, source, target; changes nothing
    pool-connect preview civil-affairs.yaml -n 5   the first rows, mapped
    pool-connect run     civil-affairs.yaml        until stopped; --once: what is there now
    pool-connect status  civil-affairs.yaml        --watch: again and again
    pool-connect reconcile civil-affairs.yaml      the source with what the pool has of it, by key range
    pool-connect setup|teardown civil-affairs.yaml   mode cdc: the statements for the database; drop the slot
    pool-connect quarantine list|show|export civil-affairs.yaml
    pool-connect replay  civil-affairs.yaml        what a target could not hold, once more
    pool-connect correct civil-affairs.yaml        have a record published as a correction
    pool-connect export  OUTPUT --identity …       what a grant delivers now, as one file

Exit codes: `connectors.runtime.exit_codes`.
"""

import os
import signal
import sys
import threading
from contextlib import ExitStack, closing
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from connectors.commands import correcting, drafting, exporting, quarantine, reconciling, replaying, status
from connectors.runtime.exit_codes import ExitCode, exit_code_for
from connectors.runtime.terminal_output import ProgressReporter, print_error, print_json, print_line
from schemas import failpoints
from schemas.errors import InvalidError, PoolError, Reason
from schemas.names import Topic
from schemas.process import allocator
from schemas.reason_texts import Language, environment_language, reason_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from connectors.config.config import ConnectorConfig
    from connectors.runtime.renewing_client import RenewingPoolClient

__all__ = ["app", "main"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # a panel round each list would cost a fifth of a second
    help=f"{(__doc__ or '').splitlines()[0]} Exit codes: docs/reference/configuration.md.",
)

File = Annotated[Path, typer.Argument(help="the connector's configuration", metavar="FILE")]


def main() -> NoReturn:
    """Run the program; print an error of the pool as one sentence, and end with its exit code."""
    for each in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(each) is signal.SIG_DFL:  # `nohup` ignores one
            signal.signal(each, _leave)
    try:
        app()
    except PoolError as error:
        print_error(f"{error.reason}: {error.message}")
        language = environment_language(os.environ)
        if language is not Language.ENGLISH:
            text = reason_text(error.reason, language)
            print_error(f"  {text.title}：{text.help}")
        sys.exit(exit_code_for(error))
    sys.exit(ExitCode.OK)


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    """End by way of every `finally`: records that were drawn into a scratch folder do not stay in it.

    `run` has a handler of its own, which ends its streams after the batches in flight.
    """
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)  # a second one would cut this short
    sys.exit(128 + number)


@app.command()
def enrol(
    token: Annotated[
        str, typer.Argument(help="one-time token from the pool's operator; - reads it from standard input")
    ],
    identity: Annotated[Path, typer.Option(help="folder for keys and certificate")],
    connector: Annotated[str, typer.Option(help="name of this connector within its department")],
    *,
    replace: Annotated[
        bool, typer.Option("--replace", help="overwrite another connector's keys in the folder")
    ] = False,
) -> None:
    """Enrol at the pool: make two keys on this machine, and get a certificate for them."""
    from exchange import client

    one_time_token = sys.stdin.readline().strip() if token == "-" else token  # noqa: S105 - the usual name of standard input
    enrolled = client.enrol(one_time_token, connector, identity, replace=replace)
    print_line(f"enrolled as {connector} at pool {enrolled.pool_id}; gateway {enrolled.gateway}; keys in {identity}")


@app.command()
def lint(file: File) -> None:
    """Validate the configuration; print its errors with line and column."""
    from connectors.config.lint import parse_config

    try:
        found = parse_config(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidError(Reason.CONFIG_INVALID, f"{file} cannot be read as UTF-8 text") from error
    if isinstance(found, list):
        for each in found:
            print_line(each.render(file.name))
        raise typer.Exit(ExitCode.CONFIG)
    print_line(f"{file.name}: no errors")


@app.command()
def check(
    file: File,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="for machines")] = False,
    sql: Annotated[bool, typer.Option("--sql", help="only the statements for the database")] = False,
) -> None:
    """Check everything that a run needs, and print what mends the rest; change nothing."""
    from connectors.config.lint import load_config
    from connectors.runtime import inspection

    config = load_config(file)
    with ExitStack() as opened:
        found = list(inspection.run_checks(config, lambda: opened.enter_context(_connect(config)), _now))
    failed = sum(each.verdict == "FAIL" for each in found)
    if as_json:
        print_json([asdict(each) for each in found])
    elif sql:
        for each in found:
            for statement in each.statements:
                print_line(statement)
    else:
        for each in found:
            print_line(f" {each.verdict:<4}  {each.subject:<28}  {each.message}")
            for line in (*each.statements, *each.remedies):
                print_line(f"         {line}")
        print_line(f" {failed} problems. Nothing was changed.")
    if failed:
        raise typer.Exit(ExitCode.AWAY)


@app.command()
def preview(
    file: File,
    *,
    rows: Annotated[int, typer.Option("-n", help="rows to show")] = 5,
    resource: Annotated[str, typer.Option(help="which publication, if there are several")] = "",
    sample: Annotated[Path | None, typer.Option("--file", help="this file instead of the folder's newest")] = None,
    schema: Annotated[Path | None, typer.Option(help="an Avro schema on disk: no pool is needed")] = None,
) -> None:
    """Show how the first rows become records, and which do not."""
    from connectors.config.lint import load_config
    from connectors.runtime import inspection

    config = load_config(file)
    section = inspection.publication_section(config, resource)
    if schema is not None:
        contract = (0, schema.read_text(encoding="utf-8"))
    else:
        with _connect(config) as pool:
            contract = pool.schema(Topic.parse(section.resource))
    result = inspection.preview(config, section, contract, rows=rows, file=sample, clock=_now)
    encoding = f"   encoding: {result.encoding}" if result.encoding else ""
    print_line(f"{result.portion}{encoding}   rows: {len(result.rows)} good, {len(result.rejects)} bad")
    for row in result.rows:
        print_line("   " + "  ".join(f"{name}={cell}" for name, cell in zip(result.names, row, strict=True)))
    for each in result.rejects:
        print_line("   " + inspection.format_reject(each))


@app.command()
def run(
    file: File,
    *,
    once: Annotated[bool, typer.Option("--once", help="end when everything that is there now is done")] = False,
    accept_deletes: Annotated[bool, typer.Option(help="the missing keys are really deleted; I have checked")] = False,
    resnapshot: Annotated[
        list[str] | None,
        typer.Option(help="mode cdc, incremental: read this resource whole again; `all` also begins the log again"),
    ] = None,
) -> None:
    """Publish and fetch, until stopped."""
    import pyarrow as pa

    from connectors.config.lint import load_config
    from connectors.runtime import service
    from connectors.runtime.assembly import RuntimeContext

    allocator.limit_arenas()  # before there are threads
    pa.set_memory_pool(pa.system_memory_pool())
    config = load_config(file)
    failpoints.arm(allowed=config.failpoints)
    stop = threading.Event()
    service.stop_on_signals(stop)
    reporter = ProgressReporter()
    # The channels are closed here and not by the interpreter's end, when gRPC's threads may wait for each other.
    with _connect(config, reporter.notify) as pool, closing(reporter):
        context = RuntimeContext(
            pool=pool,
            sign=pool.sign,
            stop=stop,
            clock=_now,
            progress=reporter.progress,
            notify=reporter.notify,
            accept_deletes=accept_deletes,
            resnapshot=frozenset(resnapshot or ()),
        )
        code = service.run(config, context, once=once, refresh=pool.refresh)
    raise typer.Exit(code)


@app.command()
def setup(
    file: File,
    *,
    print_sql: Annotated[bool, typer.Option("--print-sql", help="only the statements")] = False,
) -> None:
    """Print the statements that make the database ready for `mode: cdc`; changes nothing."""
    from connectors.config.lint import load_config
    from connectors.runtime import change_streams

    config = load_config(file)
    with _connect(config) as pool:
        problems = [each for each in change_streams.find_problems(config, pool) if each.statements]
    for each in problems:
        if not print_sql:
            print_line(f"{each.subject}: {each.message}")
        for statement in each.statements:
            print_line(statement if print_sql else f"    {statement}")
    if not problems and not print_sql:
        print_line("the database is ready; nothing is to be done")


@app.command()
def teardown(file: File) -> None:
    """Drop the replication slot of a connector that is removed: the database then keeps no log for it."""
    from connectors.config.lint import load_config
    from connectors.runtime import change_streams

    for sentence in change_streams.teardown(load_config(file), _now):
        print_line(sentence)


def _connect(config: "ConnectorConfig", warn: "Callable[[str], None]" = print_line) -> "RenewingPoolClient":
    return _connect_as(config.exchange.identity, config.exchange.gateway, warn)


def _connect_as(identity: Path, gateway: str, warn: "Callable[[str], None]" = print_error) -> "RenewingPoolClient":
    from connectors.runtime.renewing_client import RenewingPoolClient

    return RenewingPoolClient(identity, gateway, _now, warn)


def _now() -> datetime:
    return datetime.now(UTC)


drafting.add_to(app)
status.add_to(app)
quarantine.add_to(app)
reconciling.add_to(app, lambda config: _connect(config))  # noqa: PLW0108 - tests replace the function
exporting.add_to(app, lambda identity, gateway: _connect_as(identity, gateway))  # noqa: PLW0108 - as above
correcting.add_to(app)
replaying.add_to(app, lambda config: _connect(config))  # noqa: PLW0108 - as above
