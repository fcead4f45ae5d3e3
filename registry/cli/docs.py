"""Command `pool-schema docs`: a data dictionary of schemas, as HTML or Markdown, in Chinese, English or both."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from registry.cli.options import Out, with_optional_registry
from registry.cli.terminal import count, load_schema, write
from registry.reports.dictionary_language import Language

if TYPE_CHECKING:
    from registry.client.admin import RegistryAdminClient

__all__ = ["add_to"]


class _Form(StrEnum):
    HTML = "html"
    MD = "md"


def add_to(app: typer.Typer) -> None:
    """Register the command with the program."""
    app.command("docs")(docs)


@with_optional_registry
def docs(
    registry: "RegistryAdminClient | None",
    schemas: Annotated[
        list[str],
        typer.Argument(
            metavar="SCHEMA…", help="Files, names that ship, or with --url SUBJECT[@VERSION].", show_default=False
        ),
    ],
    out: Out = None,
    form: Annotated[
        _Form | None, typer.Option("--format", help="By default the file's extension decides, else html.")
    ] = None,
    language: Annotated[Language, typer.Option("--lang", help="Language of headings and labels.")] = Language.BOTH,
    title: Annotated[str, typer.Option("--title", help="Title of the page.")] = "",
) -> None:
    """Write a data dictionary (生成数据字典)."""
    from registry.reports.dictionary import build_sheet
    from registry.reports.dictionary_html import to_html
    from registry.reports.dictionary_markdown import to_markdown

    sheets = [build_sheet(load_schema(name, registry), name) for name in schemas]
    chosen = form or (_Form.MD if out is not None and out.suffix in {".md", ".markdown"} else _Form.HTML)
    page = (to_html if chosen is _Form.HTML else to_markdown)(sheets, language=language, title=title)
    write(page, out, summary=count(len(sheets), "record type"))
