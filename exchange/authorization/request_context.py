"""Request context: what a caller declares with every call, and what the gateway adds (trace id, client)."""

import re
from dataclasses import dataclass
from typing import Self

from schemas.errors import InvalidError, Reason
from schemas.identifiers import random_id

__all__ = ["RequestContext", "trace_of"]

_TRACE = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestContext:
    """The context of one call, recorded in its audit entry.

    Attributes:
        trace: 32 hexadecimal digits, the caller's or made by the gateway.
        purpose: id of the purpose catalogue (使用目的), as declared.
        case: business case number (业务编号), as declared.
        client: name and version of the caller's program.
        on_behalf_of: staff pseudonym of the person behind the program, None if unstated.
    """

    trace: str
    purpose: str = ""
    case: str = ""
    client: str = ""
    on_behalf_of: str | None = None

    @classmethod
    def declared(
        cls, *, trace: str, purpose: str = "", case: str = "", client: str = "", on_behalf_of: str = ""
    ) -> Self:
        """Return the context of what a caller sent; see the attributes.

        Raises:
            InvalidError: REQUEST_INVALID, a text is too long.
        """
        for name, value, limit in (
            ("purpose", purpose, 100),
            ("case_number", case, 200),
            ("client_version", client, 100),
            ("on_behalf_of", on_behalf_of, 100),
        ):
            if len(value) > limit:
                raise InvalidError(
                    Reason.REQUEST_INVALID, f"{name}: got {len(value)} characters; expected {limit} at most"
                )
        return cls(trace=trace_of(trace), purpose=purpose, case=case, client=client, on_behalf_of=on_behalf_of or None)


def trace_of(sent: str) -> str:
    """Return the trace id that a caller sent, or a new one where it sent none that can be used.

    A trace id of digits alone could hold an identity number; one that is made at random has letters.
    """
    return sent if _TRACE.fullmatch(sent) and not sent.isdecimal() else random_id()
