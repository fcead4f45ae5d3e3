"""Who makes accounts and invitations of a pool under test: two data authorities, and each department's own officer.

The one place where tests make accounts, by two persons, as the pool requires it.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from exchange.identity.tokens import fingerprint_of, new_token

if TYPE_CHECKING:
    from exchange.admin_client import AdminClient
    from tests.kit.world.world import World


class People:
    """Persons of one pool; each account is another person's, unless a staff number is given."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self.tokens: dict[str, str] = {}  # account name → token

    def set_up(self, world: World) -> AdminClient:
        """Add the first two data authorities with the token of `pool init`; return the API as the first."""
        if "authority-1" not in self.tokens:
            first = world.remote((world.data / "bootstrap-token").read_text().strip())
            for name in ("authority-1", "authority-2"):
                answer = first.post("/users", self._terms(name, "data_authority", ""))
                assert answer["state"] == "added", answer
        return world.remote(self.tokens["authority-1"])

    def second(self, world: World) -> AdminClient:
        """Return the API as the second data authority."""
        return world.remote(self.tokens["authority-2"])

    def officer(self, world: World, department: str) -> AdminClient:
        """Return the API as a department's security officer, whom two authorities made."""
        name = f"security-officer-{department[-6:]}"
        if name not in self.tokens:
            self._made(world, name, "security_officer", department, self.second(world))
        return world.remote(self.tokens[name])  # where the pool listens now: it may have been started again

    def account(
        self, world: World, name: str, role: str, department: str = "", *, staff_number: str = ""
    ) -> AdminClient:
        """Make an account: an authority proposes, the department's officer confirms, or a second authority."""
        confirming = self.officer(world, department) if department else self.second(world)
        return self._made(world, name, role, department, confirming, staff_number)

    def invite(self, world: World, department: str, connector: str | None) -> str:
        """Return an enrolment token: an authority proposes, the department's officer confirms."""
        proposal = world.root.post(f"/departments/{department}/invitations", {"connector": connector})
        confirmed = self.officer(world, department).post(f"/proposals/{proposal['id']}/confirmation")
        return str(confirmed["token"])

    def _made(
        self, world: World, name: str, role: str, department: str, confirming: AdminClient, staff_number: str = ""
    ) -> AdminClient:
        terms = self._terms(name, role, department, staff_number)
        proposal = world.root.post("/users", terms)
        body = {"token_fingerprint": terms["token_fingerprint"]}
        confirming.post(f"/proposals/{proposal['id']}/confirmation", body)
        return world.remote(self.tokens[name])

    def _terms(self, name: str, role: str, department: str, staff_number: str = "") -> dict[str, Any]:
        token = self.tokens[name] = new_token()
        return {
            "name": name,
            "role": role,
            "department": department,
            "staff_number": staff_number or f"T-{next(self._numbers):04d}",
            "token_fingerprint": fingerprint_of(token),
        }


class PeopleOfEarlier(People):
    """The same in a pool of an earlier version, where the first account makes everything alone."""

    def set_up(self, world: World) -> AdminClient:
        return world.remote((world.data / "bootstrap-token").read_text().strip())

    def officer(self, world: World, department: str) -> AdminClient:
        name = f"security-officer-{department[-6:]}"
        return (
            world.remote(self.tokens[name])
            if name in self.tokens
            else self.account(world, name, "security_officer", department)
        )

    def account(
        self, world: World, name: str, role: str, department: str = "", *, staff_number: str = ""
    ) -> AdminClient:
        answer = world.root.post("/users", {"name": name, "role": role, "department": department})
        self.tokens[name] = answer["token"]
        return world.remote(self.tokens[name])

    def invite(self, world: World, department: str, connector: str | None) -> str:
        answer = world.root.post(f"/departments/{department}/invitations", {"connector": connector})
        return str(answer["token"])
