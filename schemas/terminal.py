r"""Control sequences: text that others wrote, made harmless for a terminal. Pure.

A department's purpose, case number or name may hold an escape sequence that moves the cursor, hides a line or renames
the window, a line break that invents a line, or a bidirectional override that shows a text in another order than it
has. Each such character is shown as its JSON escape (`\u001b`), so that a reader sees that it is there and JSON keeps
its value.

Escaped are C0 and C1 controls and DELETE (ECMA-48), lone surrogates, line and paragraph separator, and every character
with the property Bidi_Control (Unicode Standard Annex 9).
"""

import re
from typing import Final

__all__ = ["escape_controls", "escape_line"]

_BIDI: Final = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_OTHERS: Final = f"\x7f-\x9f\u2028\u2029{_BIDI}\ud800-\udfff"
_CONTROL: Final = re.compile(f"[\x00-\x1f{_OTHERS}]")
_CONTROL_IN_TEXT: Final = re.compile(f"[\x00-\x08\x0b\x0c\x0e-\x1f{_OTHERS}]|\r(?!\n)")


def escape_line(text: str) -> str:
    """Return a text of one line: every control character is escaped, line breaks and tabs too."""
    return text if text.isascii() and text.isprintable() else _CONTROL.sub(_escaped, text)


def escape_controls(text: str) -> str:
    """Return a text of several lines, as a program made them: all but line breaks and tabs is escaped."""
    return _CONTROL_IN_TEXT.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"
