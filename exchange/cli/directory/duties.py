"""Commands `pool duty`: list, show, set and retire the items of duty lists (权责清单)."""

from typing import Annotated, Any

import typer

from exchange.cli.control import JsonOption, ReasonOption, client, connect
from exchange.cli.output import CommandGroup, is_damaged, print_fields, print_rows

__all__ = ["add_to"]

duty = typer.Typer(cls=CommandGroup)
duty.callback()(connect)

_Department = Annotated[str, typer.Argument(help="internal id of the department")]
_Code = Annotated[str, typer.Argument(help="code of the item (事项编码)")]


def add_to(app: typer.Typer) -> None:
    """Register the commands with the program."""
    text = "Duty lists (权责清单): what departments ask for records for."
    app.add_typer(duty, name="duty", help=text, no_args_is_help=True)


@duty.command("list")
def duty_list(
    context: typer.Context,
    department: Annotated[str, typer.Option(help="internal id; without it, the lists of all")] = "",
    as_json: JsonOption = False,
) -> None:
    """List the items of duty lists."""
    pool = client(context)
    rows: list[dict[str, Any]] = pool.list("/duties", {"department": department} if department else None)
    if as_json:
        print_rows(rows, (), as_json=True)
        return
    names = {one["id"]: one["short_name"] for one in pool.list("/departments") if not is_damaged(one)}
    shown = [one | {"department": names.get(one.get("department", ""), one.get("department", ""))} for one in rows]
    print_rows(shown, ("department", "code", "name", "purposes", "legal_basis", "status"), as_json=False)


@duty.command("show")
def duty_show(context: typer.Context, department: _Department, code: _Code, as_json: JsonOption = False) -> None:
    """Show an item of a duty list."""
    print_fields(client(context).get(f"/duties/{department}/{code}"), as_json=as_json)


@duty.command("set")
def duty_set(
    context: typer.Context,
    department: _Department,
    code: _Code,
    name: Annotated[str, typer.Option(help="of the duty, in words")],
    basis: Annotated[str, typer.Option(help="law and article that give the department this duty")],
    purpose: Annotated[list[str], typer.Option(help="id of a purpose that belongs to it; may be repeated")],
) -> None:
    """Write an item of a department's duty list, in place of the one of this code."""
    body = {"department": department, "code": code, "name": name, "legal_basis": basis, "purposes": purpose}
    print_fields(client(context).post("/duties", body), as_json=False)


@duty.command("retire")
def duty_retire(context: typer.Context, department: _Department, code: _Code, reason: ReasonOption = "") -> None:
    """Retire an item: no later request may name it."""
    print_fields(client(context).post(f"/duties/{department}/{code}/retirement", {"reason": reason}), as_json=False)
