"""Commands `pool clock …`: the pool's times, and their settlement by two persons."""

from typing import Annotated

import typer

from exchange.cli.control import client, connect
from exchange.cli.output import CommandGroup, print_json
from schemas.errors import InvalidError, Reason

__all__ = ["add_to"]

clock = typer.Typer(cls=CommandGroup)
clock.callback()(connect)


def add_to(app: typer.Typer) -> None:
    """Register the commands with the program."""
    app.add_typer(
        clock, name="clock", help="The pool's clock (时钟): look, settle by two persons.", no_args_is_help=True
    )


@clock.command("show")
def show(context: typer.Context) -> None:
    """Print the times of machine, database and newest checkpoint, and how far the latter is ahead."""
    print_json(client(context).get("/clock"))


@clock.command("settle")
def settle(
    context: typer.Context,
    reason: Annotated[str | None, typer.Option(help="propose: why the clock is right now, in words")] = None,
    confirm: Annotated[str | None, typer.Option("--confirm", help="confirm: id of another person's proposal")] = None,
) -> None:
    """Take the clock for right as it is now: one person proposes, another confirms. First mend the time service."""
    if (reason is None) == (confirm is None):
        raise InvalidError(Reason.REQUEST_INVALID, "expected either --reason, or --confirm with a proposal's id")
    if confirm is not None:
        print_json(client(context).post(f"/clock/settlements/{confirm}/confirmation"))
        return
    print_json(client(context).post("/clock/settlements", {"reason": reason}))
