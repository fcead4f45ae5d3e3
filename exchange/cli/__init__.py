"""`pool`: operate, grant, audit.

pool init | serve | migrate            the pool's own machine
pool renew-receipts-key                where the key was lost or stolen
pool department | user | connector     who takes part
pool catalogue | purposes              what there is
pool request | grant                   who may have what
pool audit                             who had what, and the proof
pool broker                            is all there that was acknowledged; the topic of schemas
pool demo                              all of it in a minute
"""

import sys

import typer

from exchange.cli import audit, broker, control, run
from exchange.cli.output import fail
from schemas.errors import PoolError

__all__ = ["main"]

app = typer.Typer(
    name="pool",
    help="Data Exchange Pool (公共数据交换池): operate, grant, audit.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
run.add_to(app)
control.add_to(app)
audit.add_to(app)
broker.add_to(app)


def main() -> None:
    """Run the program; an error of the pool becomes one line on standard error and an exit code."""
    try:
        app()
    except PoolError as error:
        sys.exit(fail(error))


if __name__ == "__main__":
    main()
