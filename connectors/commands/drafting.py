"""Commands `pool-connect init` and `draft-schema`: a configuration and a schema to begin with, without the pool."""

import os
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from connectors.runtime.terminal_output import print_error, print_line
from schemas.errors import ConflictError, InvalidError, Reason

if TYPE_CHECKING:
    from connectors.drafting.configuration import Answers

__all__ = ["add_to"]

File = Annotated[Path, typer.Argument(help="the connector's configuration", metavar="FILE")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("init")(init)
    app.command("draft-schema")(draft_schema)


def init(
    file: Annotated[Path, typer.Argument(help="the configuration to write; it must not exist yet", metavar="FILE")],
    *,
    connector: Annotated[str, typer.Option(help="name of this connector within its department")] = "",
    identity: Annotated[str, typer.Option(help="folder of its keys and certificate")] = "identity/",
    resource: Annotated[str, typer.Option(help="what it publishes, such as senior-card.v1")] = "",
    grant: Annotated[str, typer.Option(help="or the grant under which it fetches")] = "",
    purpose: Annotated[str, typer.Option(help="of the grant")] = "",
    case: Annotated[str, typer.Option(help="of the grant, if it has a standing one")] = "",
    kind: Annotated[str, typer.Option(help="sql: a database; files: a folder")] = "",
    url: Annotated[str, typer.Option(help="of the database, without a password")] = "",
    password: Annotated[
        str, typer.Option(help="where the password is: ${env:NAME} or ${file:PATH}; never the password")
    ] = "",
    table: Annotated[str, typer.Option(help="that is read, or written")] = "",
    slot: Annotated[
        str, typer.Option(help="publish the changes of the table from PostgreSQL's log, by this slot")
    ] = "",
    path: Annotated[str, typer.Option(help="of the folder")] = "",
) -> None:
    """Write a configuration from answers; what no option states is asked for on a terminal."""
    from connectors.config.lint import parse_config
    from connectors.drafting.configuration import Answers, write_configuration

    answers = Answers(
        connector=connector,
        identity=identity,
        resource=resource,
        grant=grant,
        purpose=purpose,
        case=case,
        kind=kind,
        url=url,
        password=password,
        table=table,
        slot=slot,
        path=path,
    )
    if sys.stdin.isatty():
        answers = _ask(answers)
    text = write_configuration(answers)
    found = parse_config(text)
    if isinstance(found, list):
        raise InvalidError(Reason.CONFIG_INVALID, "\n".join(each.message for each in found))
    try:
        # Not over another one, and readable by its owner alone: it names a database.
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise ConflictError(
            Reason.CONFIG_INVALID, f"{file} is there already; name another file, or change it by hand"
        ) from error
    except OSError as error:
        raise InvalidError(Reason.CONFIG_INVALID, f"{file} cannot be written ({type(error).__name__})") from error
    with os.fdopen(descriptor, "w", encoding="utf-8") as target:
        target.write(text)
    print_line(f"written to {file}. Next:")
    print_line(f"  pool-connect enrol - --identity {answers.identity} --connector {answers.connector}")
    if answers.resource:
        print_line(f"  pool-connect draft-schema {file} --output {answers.resource}.avsc")
    print_line(f"  pool-connect check {file}")


def _ask(answers: "Answers") -> "Answers":
    """Ask for what is missing."""

    def asked(name: str, question: str, default: str | None = None) -> None:
        nonlocal answers
        if not getattr(answers, name):
            answers = replace(answers, **{name: typer.prompt(question, default=default, err=True)})

    asked("connector", "Name of this connector")
    if not answers.resource and not answers.grant:
        if typer.confirm("Does it publish? (no: it fetches under a grant)", default=True, err=True):
            asked("resource", "Resource that it publishes, such as senior-card.v1")
        else:
            asked("grant", "Grant")
    if answers.grant:
        asked("purpose", "Purpose of the grant")
        asked("case", "Standing case number of the grant (empty: none)", "")
    asked("kind", "Database or folder of files: sql or files", "sql")
    if answers.kind == "files":
        asked("path", "Folder")
        return answers
    asked("url", "Address of the database, without its password: postgresql://user@host/database")
    asked("password", "Where its password is: ${env:NAME} or ${file:PATH} (empty: none)", "")
    asked("table", "Table")
    return answers


def draft_schema(
    file: File,
    *,
    resource: Annotated[str, typer.Option(help="which publication, if there are several")] = "",
    sample: Annotated[Path | None, typer.Option("--file", help="this file instead of the folder's newest")] = None,
    output: Annotated[Path | None, typer.Option(help="file to write; else the schema is printed")] = None,
) -> None:
    """Draft the Avro schema of a publication from its table or file; guesses are marked CONFIRM.

    Values are read to guess what they are, and shown nowhere. The registry refuses a schema in which a CONFIRM is left.
    """
    from connectors.config.lint import load_config
    from connectors.runtime import drafts
    from connectors.runtime.inspection import publication_section

    config = load_config(file)
    draft = drafts.draft(config, publication_section(config, resource), file=sample, clock=lambda: datetime.now(UTC))
    if output is None:
        for line in draft.text.splitlines():
            print_line(line)
    else:
        try:
            with output.open("x", encoding="utf-8") as target:
                target.write(draft.text)
        except FileExistsError as error:
            raise ConflictError(Reason.CONFIG_INVALID, f"{output} is there already; name another file") from error
        except OSError as error:
            raise InvalidError(Reason.CONFIG_INVALID, f"{output} cannot be written ({type(error).__name__})") from error
    width = max((len(name) for name, _, _ in draft.reasons), default=0)
    print_error(f"{'field':<{width}}  {'proposed':<24}  because")
    for name, proposal, because in draft.reasons:
        print_error(f"{name:<{width}}  {proposal:<24}  {because}")
    if draft.columns:
        print_error("under `columns:` of the configuration:")
        for line in draft.columns:
            print_error(f"  {line}")
    print_error(
        "confirm each level, personal, sensitive and mask, and remove the word CONFIRM; then register the schema"
    )
