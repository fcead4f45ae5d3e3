"""Commands `pool zone`: move departments and resources to another network zone."""

from typing import Annotated

import typer

from exchange.cli.control import ReasonOption, client, connect
from exchange.cli.output import CommandGroup, print_line
from registry.directory.government_level import Zone

__all__ = ["add_to"]

zone = typer.Typer(cls=CommandGroup)
zone.callback()(connect)


def add_to(app: typer.Typer) -> None:
    """Register the commands with the program."""
    text = "Network zones (政务内网, 政务外网, 互联网) of departments and resources."
    app.add_typer(zone, name="zone", help=text, no_args_is_help=True)


@zone.command("department")
def zone_department(
    context: typer.Context,
    department_id: str,
    to: Annotated[Zone, typer.Option(help="the zone from which its connectors call from now on")],
    reason: ReasonOption,
) -> None:
    """Move a department. What it draws from another zone, and publishes into one, is refused from then on."""
    answer = client(context).post(f"/departments/{department_id}/zone", {"zone": str(to), "reason": reason})
    print_line(f"{answer['short_name']} ({answer['id']}): {answer['zone']}")


@zone.command("resource")
def zone_resource(
    context: typer.Context,
    topic: str,
    to: Annotated[Zone, typer.Option(help="the zone from which it is published and drawn from now on")],
    reason: ReasonOption,
) -> None:
    """Move a resource. Who draws it from another zone needs a grant that says so."""
    answer = client(context).post(f"/catalogue/{topic}/zone", {"zone": str(to), "reason": reason})
    print_line(f"{answer['topic']}: {answer['zone']}")
