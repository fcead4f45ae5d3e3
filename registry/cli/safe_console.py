"""Console of `pool-schema` that escapes control characters: texts of schemas, subjects and requests are others' words.

Escaped is what is rendered, so that no command can forget it; the console's own styles stay (`schemas.terminal`).
"""

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text
from typing_extensions import override

from schemas.terminal import escape_controls

__all__ = ["SafeConsole"]


class SafeConsole(Console):
    """A console whose texts cannot control the terminal."""

    @override
    def render_str(self, text: str, *arguments: Any, **options: Any) -> Text:
        # Before the layout, which would crop a cell that becomes longer afterwards.
        return super().render_str(escape_controls(text), *arguments, **options)

    @override
    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(escape_controls(segment.text), segment.style)
