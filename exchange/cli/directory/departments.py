"""Commands `pool department`: register, list, show, place, name officers, rename, merge, deactivate, invite."""

from typing import Annotated

import typer

from exchange.cli.control import JsonOption, ReasonOption, client, connect
from exchange.cli.directory.department_tree import describe_tree, tree_of
from exchange.cli.output import CommandGroup, is_damaged, print_fields, print_json, print_line, print_lines, print_rows
from registry.directory.government_level import DepartmentKind, GovernmentLevel

__all__ = ["add_to"]

department = typer.Typer(cls=CommandGroup)
department.callback()(connect)


def add_to(app: typer.Typer) -> None:
    """Register the commands with the program."""
    text = "Departments, who is above whom, and invitations of their connectors."
    app.add_typer(department, name="department", help=text, no_args_is_help=True)


@department.command("add")
def department_add(
    context: typer.Context,
    name: Annotated[str, typer.Option()],
    short_name: Annotated[str, typer.Option()],
    uscc: Annotated[str, typer.Option(help="unified social credit code (统一社会信用代码)")],
    division_code: Annotated[str, typer.Option()],
    level: Annotated[GovernmentLevel, typer.Option()] = GovernmentLevel.CITY,
) -> None:
    """Register a department."""
    body = {"name": name, "short_name": short_name, "uscc": uscc, "division_code": division_code, "level": str(level)}
    print_json(client(context).post("/departments", body))


@department.command("list")
def department_list(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the departments."""
    columns = (
        "id",
        "short_name",
        "name",
        "level",
        "division_code",
        "zone",
        "kinds",
        "parent",
        "contract_ends",
        "status",
    )
    print_rows(client(context).list("/departments"), columns, as_json=as_json)


@department.command("show")
def department_show(context: typer.Context, department_id: str, as_json: JsonOption = False) -> None:
    """Show a department: what it is, who is above and under it, and its officers."""
    pool = client(context)
    document = pool.get(f"/departments/{department_id}")
    if as_json:
        print_json(document)
        return
    names = {one["id"]: one["short_name"] for one in pool.list("/departments") if not is_damaged(one)}

    def named(one: str | None) -> str:
        return f"{names.get(one, '?')} ({one})" if one else ""

    in_use = document.pop("officers_in_use")
    for office in ("office_head", "office_deputy", "security_officer"):
        if document[office] and not in_use.get(office):
            document[office] += " (not in use: name another)"
    for member in ("parent", "successor"):
        document[member] = named(document[member])
    for member in ("superiors", "inferiors"):
        document[member] = ", ".join(map(named, document[member]))
    print_fields(document, as_json=False)


@department.command("tree")
def department_tree(context: typer.Context, as_json: JsonOption = False) -> None:
    """Show the active departments, each under the one above it."""
    departments = client(context).list("/departments")
    if as_json:
        print_json(tree_of(departments))
    else:
        print_lines(describe_tree(tree_of(departments)))


@department.command("superior")
def department_superior(
    context: typer.Context,
    department_id: str,
    other: Annotated[str, typer.Argument(help="internal id of the other department")],
    as_json: JsonOption = False,
) -> None:
    """Show the nearest department above both, to which a dispute between them goes (decree 809, Art. 28)."""
    document = client(context).get(f"/departments/{department_id}/common-superior", {"other": other})
    if as_json:
        print_json(document)
    else:
        print_line(document["superior"] or "none: no department is above both")


@department.command("place")
def department_place(
    context: typer.Context,
    department_id: str,
    parent: Annotated[str | None, typer.Option(help="internal id of the department above it; '' = none")] = None,
    kind: Annotated[
        list[DepartmentKind] | None, typer.Option(help="what it does in the pool; may be repeated, and replaces all")
    ] = None,
    level: Annotated[GovernmentLevel | None, typer.Option()] = None,
    division_code: Annotated[str | None, typer.Option()] = None,
    contract_ends: Annotated[
        str | None, typer.Option(help="of a contractor, with its offset, such as 2026-12-31T18:00+08:00")
    ] = None,
) -> None:
    """Change what stands above a department, its level and division, what it does, the end of its contract.

    What is not given stays. A contractor (受托方) stands under the department that commissioned it.
    """
    body = {
        "parent": parent,
        "kinds": None if not kind else list(map(str, kind)),
        "level": None if level is None else str(level),
        "division_code": division_code,
        "contract_ends": contract_ends,
    }
    given = {name: value for name, value in body.items() if value is not None}
    print_json(client(context).post(f"/departments/{department_id}/placement", given))


@department.command("officers")
def department_officers(
    context: typer.Context,
    department_id: str,
    head: Annotated[str | None, typer.Option(help="account of the sharing office's head; '' = none")] = None,
    deputy: Annotated[str | None, typer.Option(help="account of the sharing office's deputy; '' = none")] = None,
    security: Annotated[str | None, typer.Option(help="account of the security officer; '' = none")] = None,
) -> None:
    """Name the accounts of a department's officers (decree 809, Art. 11); who is not given stays."""
    body = {"office_head": head, "office_deputy": deputy, "security_officer": security}
    given = {name: value for name, value in body.items() if value is not None}
    print_json(client(context).post(f"/departments/{department_id}/officers", given))


@department.command("rename")
def department_rename(
    context: typer.Context,
    department_id: str,
    name: Annotated[str, typer.Option()],
    short_name: Annotated[str, typer.Option()],
    uscc: Annotated[str | None, typer.Option(help="new unified social credit code; unchanged if not given")] = None,
) -> None:
    """Change a department's name; its id, resources and grants stay."""
    body = {"name": name, "short_name": short_name, "uscc": uscc}
    print_json(client(context).post(f"/departments/{department_id}/renaming", body))


@department.command("merge")
def department_merge(
    context: typer.Context,
    department_id: str,
    into: Annotated[str, typer.Option(help="internal id of the successor")],
    reason: ReasonOption,
) -> None:
    """End a department that merged into another: its accounts and certificates end, the rest goes over to that."""
    print_json(client(context).post(f"/departments/{department_id}/merger", {"into": into, "reason": reason}))


@department.command("deactivate")
def department_deactivate(context: typer.Context, department_id: str, reason: ReasonOption) -> None:
    """End a department without a successor: its accounts, certificates, requests and grants end with it."""
    print_json(client(context).post(f"/departments/{department_id}/deactivation", {"reason": reason}))


@department.command("invite")
def department_invite(
    context: typer.Context,
    department_id: str,
    connector_name: Annotated[str | None, typer.Option("--connector", help="only this connector may use it")] = None,
) -> None:
    """Propose a one-time enrolment token; an officer of the department gets it with `pool connector confirm`."""
    answer = client(context).post(f"/departments/{department_id}/invitations", {"connector": connector_name})
    print_line(f"proposed: {answer['id']}; an officer of the department confirms it with `pool connector confirm`")
