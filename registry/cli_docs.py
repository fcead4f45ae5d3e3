"""`pool-schema docs`: a data dictionary of schemas, as HTML or Markdown, in Chinese, English or both."""

from enum import StrEnum
from typing import Annotated

import typer

from registry.cli_options import Out, perhaps_at_registry
from registry.dictionary import Language, sheet
from registry.dictionary_html import to_html
from registry.dictionary_markdown import to_markdown
from registry.remote import Remote
from registry.terminal import count, schema_named, write

__all__ = ["add_to"]


class _Form(StrEnum):
    HTML = "html"
    MD = "md"


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("docs")(docs)


@perhaps_at_registry
def docs(
    registry: Remote | None,
    schemas: Annotated[
        list[str],
        typer.Argument(
            metavar="SCHEMA…", help="Files, names that ship, or with --url SUBJECT[@VERSION].", show_default=False
        ),
    ],
    out: Out = None,
    form: Annotated[
        _Form | None, typer.Option("--format", help="html if not given, or what the name of the file says.")
    ] = None,
    language: Annotated[Language, typer.Option("--lang", help="Of the words that the page adds.")] = Language.BOTH,
    title: Annotated[str, typer.Option("--title", help="Of the page.")] = "",
) -> None:
    """Write a data dictionary (生成数据字典)."""
    sheets = [sheet(schema_named(name, registry), name) for name in schemas]
    chosen = form or (_Form.MD if out is not None and out.suffix in {".md", ".markdown"} else _Form.HTML)
    page = (to_html if chosen is _Form.HTML else to_markdown)(sheets, language=language, title=title)
    write(page, out, told=count(len(sheets), "record type"))
