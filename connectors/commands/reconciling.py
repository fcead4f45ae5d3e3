"""Command `pool-connect reconcile`: is the source equal to what the pool has of it?"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from connectors.runtime.exit_codes import ExitCode
from connectors.runtime.terminal_output import ProgressReporter, print_error, print_json, print_line

if TYPE_CHECKING:
    from connectors.config.config import ConnectorConfig
    from connectors.port import Pool
    from connectors.runtime.reconciliation.publication import Reconciled
    from connectors.runtime.reconciliation.subscription import ReconciledTarget
    from connectors.runtime.renewing_client import RenewingPoolClient
    from schemas.connector_report import ReconciliationTotals

__all__ = ["add_to"]

Connect = Callable[["ConnectorConfig"], "RenewingPoolClient"]


def add_to(app: typer.Typer, connect: Connect) -> None:
    """Add the command; *connect* opens the pool's client of a configuration."""

    @app.command()
    def reconcile(
        file: Annotated[Path, typer.Argument(help="the connector's configuration", metavar="FILE")],
        *,
        resource: Annotated[str, typer.Option(help="which publication, if there are several")] = "",
        grant: Annotated[str, typer.Option(help="or the subscription of this grant")] = "",
        differences: Annotated[
            Path | None, typer.Option(help="file to write the keys that differ to; it will hold personal data")
        ] = None,
        unstated: Annotated[bool, typer.Option("--unstated", help="do not state the totals to the pool")] = False,
        as_json: Annotated[bool, typer.Option("--json", help="for machines: totals, no keys")] = False,
    ) -> None:
        """Compare a source with the pool, or a target with its grant, by key range; ends with 4 if they differ.

        Nothing is published or written. For a target everything is drawn once more: releases, with their entries. The
        pool records the totals, counts without a key, as an entry of its log; --unstated leaves it out.
        """
        from connectors.config.lint import load_config

        config = load_config(file)
        with connect(config) as pool:
            if grant or not config.publish:
                found = _target(config, grant, pool, differences)
            else:
                found = _source(config, resource, pool, differences)
            entry = "" if unstated else _state(pool, found.totals)
        if as_json:
            print_json({**found.document, "entry": entry})
        else:
            found.show()
            if entry:
                print_line(f"   the totals are entry {entry} of the pool's log")
        equal = found.equal
        if not equal:
            raise typer.Exit(ExitCode.PERSON)


@contextmanager
def _progress(stream: str) -> Iterator[Callable[[int], None]]:
    """Show how many rows were compared, on standard error."""
    from connectors.state.ledger import RunReport

    with closing(ProgressReporter()) as reporter:
        yield lambda rows: reporter.progress(RunReport(id=0, portion=stream, read=rows, outcome="comparing"))


@dataclass(frozen=True, kw_only=True)
class _Compared:
    """A comparison: whether all is equal, what is stated of it, its document, and what prints it."""

    equal: bool
    totals: "ReconciliationTotals"
    document: dict[str, Any]
    show: Callable[[], None]


def _state(pool: "Pool", totals: "ReconciliationTotals") -> str:
    """State the totals to the pool; return the id of the entry, empty where there is none."""
    from schemas.errors import PoolError

    try:
        return pool.reconciled(totals)
    except PoolError as error:  # what was compared is known all the same
        print_error(f"the totals were not stated: {error.reason}: {error.message}")
        return ""


def _source(config: "ConnectorConfig", resource: str, pool: "Pool", differences: Path | None) -> _Compared:
    from connectors.runtime.inspection import publication_section
    from connectors.runtime.reconciliation.publication import reconcile
    from schemas.connector_report import Direction, KeyRangeTotals, ReconciliationTotals

    section = publication_section(config, resource)
    with _progress(section.resource) as progress:
        found = reconcile(
            config, section, pool, clock=lambda: datetime.now(UTC), differences=differences, progress=progress
        )
    equal = found.result.equal and found.same_lane
    totals = ReconciliationTotals(
        direction=Direction.PUBLISH,
        stream=section.resource,
        sequence=found.pool_sequence,
        ranges=[KeyRangeTotals(each.range, each.source, each.pool, each.equal) for each in found.result.ranges],
        set_aside=found.result.rejected + found.result.unknown,
        equal=equal,
    )
    return _Compared(equal=equal, totals=totals, document=asdict(found), show=lambda: _print(found, differences))


def _target(config: "ConnectorConfig", grant: str, pool: "Pool", differences: Path | None) -> _Compared:
    from connectors.runtime.inspection import subscription_section
    from connectors.runtime.reconciliation.subscription import reconcile_target
    from schemas.connector_report import Direction, KeyRangeTotals, ReconciliationTotals

    section = subscription_section(config, grant)
    with _progress(section.grant) as progress:
        found = reconcile_target(config, section, pool, differences=differences, progress=progress)
    totals = ReconciliationTotals(
        direction=Direction.SUBSCRIBE,
        stream=section.grant,
        sequence=0,
        ranges=[KeyRangeTotals(each.range, each.target, each.pool, each.equal) for each in found.result.ranges],
        set_aside=found.result.quarantined,
        equal=found.result.equal,
    )
    return _Compared(
        equal=found.result.equal,
        totals=totals,
        document=asdict(found),
        show=lambda: _print_target(found, differences),
    )


def _print_target(found: "ReconciledTarget", file: Path | None) -> None:
    result = found.result
    print_line(
        f"{found.grant}: the target with the grant; {found.releases:,} releases, the last entry {found.last_entry}"
    )
    print_line(f"   {'keys':<6}{'target':>12}{'pool':>12}")
    for each in result.ranges:
        verdict = "equal" if each.equal else "DIFFERS"
        print_line(f"   {each.range + '…':<6}{each.target:>12,}{each.pool:>12,}  {verdict}")
    target, pool = sum(each.target for each in result.ranges), sum(each.pool for each in result.ranges)
    print_line(f"   {'all':<6}{target:>12,}{pool:>12,}  {result.quarantined:,} in quarantine")
    _print_differences(result.differences, file, equal="target and pool are equal")


def _print_differences(differences: "Mapping[str, int]", file: Path | None, *, equal: str) -> None:
    if not differences:
        print_line(f"   {equal}")
        return
    kinds = "; ".join(f"{count:,} {kind}" for kind, count in differences.items())
    print_line(f"   {kinds}" + (f"; their keys are in {file}" if file else "; --differences FILE writes their keys"))


def _print(found: "Reconciled", file: Path | None) -> None:
    result = found.result
    print_line(f"{found.resource}: {found.portion} with the pool, as of batch {found.sequence}")
    print_line(f"   {'keys':<6}{'source':>12}{'pool':>12}")
    for each in result.ranges:
        verdict = "equal" if each.equal else "DIFFERS"
        print_line(f"   {each.range + '…':<6}{each.source:>12,}{each.pool:>12,}  {verdict}")
    source, pool = sum(each.source for each in result.ranges), sum(each.pool for each in result.ranges)
    print_line(f"   {'all':<6}{source:>12,}{pool:>12,}  of {result.rows:,} rows, {result.rejected:,} are no record")
    if result.unknown:
        print_line(f"   {result.unknown:,} records are not compared: the ledger was lost, and does not know them")
    if not found.same_lane:
        print_line(
            f"   the pool's last batch is {found.pool_sequence}, this machine's {found.sequence}: while the connector "
            "runs, try again; else its next run finds out why"
        )
    _print_differences(result.differences, file, equal="source and pool are equal")
