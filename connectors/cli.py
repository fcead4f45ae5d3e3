"""`pool-connect`, the command line of a department's connector to the pool.

    pool-connect init    civil-affairs.yaml        a configuration from answers
    pool-connect draft-schema civil-affairs.yaml   an Avro schema from the table or file, to be confirmed
    pool-connect enrol TOKEN --identity identity/ --connector civil-affairs-drop
    pool-connect lint    civil-affairs.yaml        the file alone: no network, no secrets
    pool-connect check   civil-affairs.yaml        pool, grants, source, target; changes nothing
    pool-connect preview civil-affairs.yaml -n 5   the first rows, mapped
    pool-connect run     civil-affairs.yaml        until stopped; --once: what is there now
    pool-connect status  civil-affairs.yaml
    pool-connect setup|teardown civil-affairs.yaml   mode cdc: the statements for the database; drop the slot
    pool-connect quarantine list|export civil-affairs.yaml

Exit codes: `connectors.runtime.exit_codes`.
"""

import os
import sys
import threading
from contextlib import ExitStack, closing
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from connectors.commands import drafting
from connectors.runtime.exit_codes import ExitCode, exit_code_for
from connectors.runtime.terminal_output import ProgressReporter, print_error, print_json, print_line
from schemas import failpoints
from schemas.errors import InvalidError, PoolError, Reason
from schemas.names import Topic
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
quarantine_app = typer.Typer(no_args_is_help=True, help="Rows that were quarantined.")
app.add_typer(quarantine_app, name="quarantine")
drafting.add_to(app)

File = Annotated[Path, typer.Argument(help="the connector's configuration", metavar="FILE")]


def main() -> NoReturn:
    """Run the program; print an error of the pool as one sentence, and end with its exit code."""
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
        list[str] | None, typer.Option(help="mode cdc: read this resource whole again; `all` also begins the log again")
    ] = None,
) -> None:
    """Publish and fetch, until stopped."""
    from connectors.config.lint import load_config
    from connectors.runtime import service
    from connectors.runtime.assembly import RuntimeContext

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


@app.command("status")
def status_(file: File, *, as_json: Annotated[bool, typer.Option("--json", help="for machines")] = False) -> None:
    """Show how far each stream is; works while the connector runs, and without the pool."""
    from connectors.config.lint import load_config
    from connectors.runtime import status

    found = status.statuses(load_config(file))
    if as_json:
        print_json([asdict(each) for each in found])
        return
    for each in found:
        print_line(f"{each.stream}  ({each.direction})  {each.state}   last success {each.last_success or 'never'}")
        print_line(
            f"   last run: {each.read:,} read = {each.published:,} published + {each.quarantined:,} quarantined + "
            f"{each.unchanged:,} unchanged; {each.voided:,} voided"
        )
        print_line(f"   batch {each.sequence}, {each.unacknowledged} unacknowledged, {each.keys:,} keys known")
        print_line(
            f"   last receipt {each.last_entry or 'none'}; certificate until {each.certificate_expires or 'unknown'}"
        )
        if each.next_pass:
            print_line(f"   next pass due at {each.next_pass}")
        if each.grant_expires:
            print_line(f"   grant until {each.grant_expires}")
        if each.in_quarantine:
            print_line(
                "   in quarantine: " + ", ".join(f"{code} {count:,}" for code, count in each.in_quarantine.items())
            )
        if each.files_set_aside:
            print_line(f"   {each.files_set_aside:,} files set aside: see `pool-connect quarantine list {file}`")
        if each.voids_held:
            print_line(f"   {each.voids_held:,} voids wait for rows whose keys cannot be read")
        if each.stopped:
            print_line(
                f"   stopped: the table {each.stopped}; see `pool-connect run {file} --resnapshot {each.stream}`"
            )
        if each.ledger_lost:
            print_line(
                f"   the ledger was lost at {each.ledger_lost}: keys that left the source before it cannot be voided"
            )


@quarantine_app.command("list")
def quarantine_list(
    file: File, *, everything: Annotated[bool, typer.Option("--all", help="closed ones too")] = False
) -> None:
    """List the quarantined rows, without their values."""
    from connectors.config.lint import load_config
    from connectors.runtime import status

    for stream, each in status.quarantined(load_config(file), everything=everything):
        field = f"  {each.field}" if each.field else ""
        print_line(f"{each.id:>6}  {stream}  {each.portion}:{each.line}  {each.code}{field}  {each.message}")


@quarantine_app.command("export")
def quarantine_export(
    file: File,
    output: Annotated[Path, typer.Option("--csv", help="file to write; it will hold the rows themselves")],
    *,
    everything: Annotated[bool, typer.Option("--all", help="closed ones too")] = False,
) -> None:
    """Write the quarantined rows, with their original text, as CSV, so that they can be mended at their source."""
    from connectors.config.lint import load_config
    from connectors.runtime import status
    from connectors.state.quarantine import as_csv

    with output.open("wb") as target:
        output.chmod(0o600)
        for line in as_csv(each for _, each in status.quarantined(load_config(file), everything=everything)):
            target.write(line)
    print_line(f"written to {output}, readable by this user only; it holds the rows' own values")


def _connect(config: "ConnectorConfig", warn: "Callable[[str], None]" = print_line) -> "RenewingPoolClient":
    from connectors.runtime.renewing_client import RenewingPoolClient

    return RenewingPoolClient(config.exchange.identity, config.exchange.gateway, _now, warn)


def _now() -> datetime:
    return datetime.now(UTC)
