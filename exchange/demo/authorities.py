"""Data authorities of the demonstration, and the accounts that two persons make."""

from dataclasses import dataclass
from pathlib import Path

from exchange.admin_client import AdminClient
from exchange.identity.keyfile import create_private
from exchange.identity.tokens import fingerprint_of, new_token

__all__ = ["AUTHORITY_TOKEN", "Authorities"]

AUTHORITY_TOKEN = "authority.token"  # noqa: S105 - a file's name
"""File in the pool's folder: the first authority's token, for the commands that the demonstration proposes."""


@dataclass(frozen=True, slots=True)
class Authorities:
    """The two data authorities of the demonstration: one proposes, the other confirms what no officer can yet."""

    first: AdminClient
    second: AdminClient

    @classmethod
    def set_up(cls, data: Path, addresses: dict[str, str]) -> "Authorities":
        """Add the two with the pool's first token, which ends with that."""
        first_token = (data / "bootstrap-token").read_text().strip()
        pool = AdminClient(f"https://{addresses['http']}", first_token, data / "ca" / "authority.crt")
        tokens = []
        for name in ("data-authority-1", "data-authority-2"):
            tokens.append(new_token())
            pool.post("/users", _account(name, "data_authority", "", tokens[-1]))
        create_private(data / AUTHORITY_TOKEN, tokens[0].encode())
        return cls(*(pool.as_account(token) for token in tokens))

    def account(self, name: str, role: str, department: str, officer: AdminClient | None) -> AdminClient:
        """Return the API as a new account: proposed by the first authority, confirmed by an officer of the department.

        Where it has none yet, the second authority confirms. The token's fingerprint is what its holder told to both.
        """
        token = new_token()
        proposal = self.first.post("/users", _account(name, role, department, token))
        confirming = self.second if officer is None else officer
        confirming.post(f"/proposals/{proposal['id']}/confirmation", {"token_fingerprint": fingerprint_of(token)})
        return self.first.as_account(token)


def _account(name: str, role: str, department: str, token: str) -> dict[str, str]:
    return {
        "name": name,
        "role": role,
        "department": department,
        "staff_number": f"DEMO-{name}"[:32].rstrip("-"),
        "token_fingerprint": fingerprint_of(token),
    }
