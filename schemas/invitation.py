"""Invitation: the one-time token with which a connector's machine enrols.

A department's administrator takes it there. It is one line of text, base64url of JSON: the address of the pool's
enrolment listener, the pool's certificate authority, and a secret. With the authority the machine authenticates the
server before it sends anything; it then sends the secret alone. The pool stores only the secret's SHA-256.

Standard library only: a department's machine loads this.
"""

import base64
import binascii
import json
from dataclasses import dataclass, field
from typing import Self

from schemas.errors import InvalidError, Reason

__all__ = ["Invitation"]

_MAX = 16_384  # characters; a token with one certificate has about 1,200
_MEMBERS = frozenset({"address", "authority", "secret"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """Content of an invitation.

    Attributes:
        address: host:port of the enrolment listener.
        authority: the pool's certificate authority, PEM.
        secret: proves the invitation; never printed.
    """

    address: str
    authority: str
    secret: str = field(repr=False)

    def encode(self) -> str:
        """Return the line of text."""
        members = {"address": self.address, "authority": self.authority, "secret": self.secret}
        return base64.urlsafe_b64encode(json.dumps(members, separators=(",", ":")).encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> Self:
        """Read the line of text; white space around and within it (a wrapped line) is ignored.

        Raises:
            InvalidError: TOKEN_INVALID.
        """
        line = "".join(text[:_MAX].split())
        try:
            members = json.loads(base64.b64decode(line + "=" * (-len(line) % 4), altchars=b"-_", validate=True))
        except (ValueError, binascii.Error) as error:
            raise _invalid() from error
        if not isinstance(members, dict) or members.keys() != _MEMBERS:
            raise _invalid()
        if not all(isinstance(value, str) and value for value in members.values()):
            raise _invalid()
        return cls(**members)


def _invalid() -> InvalidError:
    return InvalidError(
        Reason.TOKEN_INVALID,
        "got something that is no invitation; paste the whole line that `pool department invite` gave",
    )
