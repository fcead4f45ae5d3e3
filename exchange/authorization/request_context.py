"""Request context: what a caller declares with every call, and what the gateway adds (trace id, client)."""

from dataclasses import dataclass

__all__ = ["RequestContext"]


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
