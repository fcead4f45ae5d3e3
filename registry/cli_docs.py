"""`pool-schema docs`: a data dictionary of schemas, as HTML or Markdown, in Chinese, English or both."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from registry.cli_options import Authority, Certificate, Key, TokenFile, Url, remote
from registry.dictionary import Language, sheet
from registry.dictionary_html import to_html
from registry.dictionary_markdown import to_markdown
from registry.terminal import console, count, fail, schema_named

__all__ = ["add_to"]


class _Form(StrEnum):
    HTML = "html"
    MD = "md"


def add_to(app: typer.Typer) -> None:
    """Add the command."""
    app.command("docs")(docs)


def docs(
    schemas: Annotated[
        list[str],
        typer.Argument(
            metavar="SCHEMA…", help="Files, names that ship, or with --url SUBJECT[@VERSION].", show_default=False
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File to write; standard output if not given.")
    ] = None,
    form: Annotated[
        _Form | None, typer.Option("--format", help="html if not given, or what the name of the file says.")
    ] = None,
    language: Annotated[Language, typer.Option("--lang", help="Of the words that the page adds.")] = Language.BOTH,
    title: Annotated[str, typer.Option("--title", help="Of the page.")] = "",
    url: Url = None,
    token_file: TokenFile = None,
    authority: Authority = None,
    certificate: Certificate = None,
    key: Key = None,
) -> None:
    """Write a data dictionary (生成数据字典)."""
    registry = remote(url, token_file, authority, certificate, key)
    sheets = [sheet(schema_named(name, registry), name) for name in schemas]
    chosen = form or (_Form.MD if out is not None and out.suffix in {".md", ".markdown"} else _Form.HTML)
    page = (to_html if chosen is _Form.HTML else to_markdown)(sheets, language=language, title=title)
    if out is None:
        sys.stdout.write(page)
        return
    try:
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        fail(f"{out}: {error.strerror or type(error).__name__}")
    console(stderr=True).print(f"{out}: {count(len(sheets), 'record type')}", markup=False, soft_wrap=True)
