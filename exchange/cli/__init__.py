"""Program `pool`: operate the pool, grant access, audit.

pool init | serve | migrate            make and run a pool, on its own machine
pool status | alarms                   the pool on this machine at a glance, and what operators are told of
pool renew-receipts-key                replace a lost or stolen key
pool keys                              the keys of one role, for a host of its own
pool department                        departments
pool zone                              network zones of departments and resources
pool user | connector | certificate    accounts, connectors, their certificates
pool catalogue | purposes              the catalogue of resources, the purposes
pool request | grant                   share requests and grants
pool correction                        doubted values, their answers, and who is told
pool task                              what waits for you, what is overdue, what changed
pool erase                             erasure of a record key's values, by two persons
pool calendar | profile | deadline     working days, limits with their clauses, one deadline computed
pool report                            figures of departments for supervision, and what is behind them
pool audit                             search and verify the audit log
pool clock                             settle a clock that stored a time of the future
pool broker                            check acknowledged batches; export the schemas topic
pool backup                            back up, verify a backup, restore
pool demo                              a demonstration, in a minute
"""

import os
import sys

import typer

from exchange.cli import accounts, audit, backup, broker, clock, control, erase, keys, run
from exchange.cli.catalogue import elements, entries, export, inventory, search
from exchange.cli.corrections import tickets
from exchange.cli.directory import departments, duties, zones
from exchange.cli.hub import conflicts, predicates
from exchange.cli.hub import rules as hub_rules
from exchange.cli.output import CommandGroup, fail
from exchange.cli.oversight import violations
from exchange.cli.report import figures as report_figures
from exchange.cli.report import group as reports
from exchange.cli.report import resources as report_resources
from exchange.cli.requests import commands as requests
from exchange.cli.rules import calendar as working_days
from exchange.cli.rules import profiles
from exchange.cli.tasks import lists as tasks
from schemas.errors import PoolError

__all__ = ["main"]

app = typer.Typer(
    name="pool",
    help="Data Exchange Pool (公共数据交换池): operate, grant, audit.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # a panel round each list would cost a fifth of a second
    add_completion=False,
    cls=CommandGroup,
)
run.add_to(app)
departments.add_to(app)
zones.add_to(app)
duties.add_to(app)
violations.add_to(app)
control.add_to(app)
requests.add_to_groups()
tasks.add_to(app)
entries.add_to(app)
inventory.add_to_group()
export.add_to_group()
search.add_to_group()
elements.add_to(app)
accounts.add_to(app)
erase.add_to(app)
tickets.add_to(app)
working_days.add_to(app)
profiles.add_to(app)
hub_rules.add_to(app)
predicates.add_to_group()
conflicts.add_to_group()
reports.add_to(app)
report_figures.add_to_group()
report_resources.add_to_group()
audit.add_to(app)
clock.add_to(app)
broker.add_to(app)
backup.add_to(app)
keys.add_to(app)


def main() -> None:
    """Run the program; print an error of the pool on standard error and turn it into an exit code."""
    # Programs are started by fork where they run as another user. gRPC's handlers of a fork are for children that go on
    # to use gRPC, which none of ours does, and may abort them.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
    try:
        app()
    except PoolError as error:
        sys.exit(fail(error))


if __name__ == "__main__":
    main()
