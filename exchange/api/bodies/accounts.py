"""Bodies of accounts, invitations and certificates: what is proposed, and the documents of what there is."""

from pydantic import Field

from exchange.api.bodies.base import Body, moment_or_none
from exchange.control.accounts import ListedAccount
from exchange.identity.proposals import Proposal
from exchange.identity.store import Certificate
from schemas.access import Role
from schemas.canonical import Json

__all__ = [
    "ConfirmationBody",
    "ConnectorBody",
    "InvitationBody",
    "PersonBody",
    "TokenBody",
    "UserBody",
    "account_json",
    "certificate_json",
    "proposal_json",
]


class InvitationBody(Body):
    """The connector that a one-time enrolment token is for."""

    connector: str | None = Field(None, description="only this connector may use it; any of the department if absent")


class UserBody(Body):
    """An account for a person, to be proposed."""

    name: str
    role: Role
    department: str = Field("", description="internal id; empty for roles of the pool itself")
    staff_number: str = Field(description="of the person (工号), unique in the pool; no national identity number")
    token_fingerprint: str = Field(description="of the token that the account's holder has made: sha256:…")


class PersonBody(Body):
    """The person of an account of an earlier version, to be proposed."""

    staff_number: str


class TokenBody(Body):
    """The fingerprint of another token for an account."""

    token_fingerprint: str


class ConfirmationBody(Body):
    """The confirmation of a proposal."""

    token_fingerprint: str | None = Field(None, description="for an account or a token: from the account's holder")


class ConnectorBody(Body):
    """A connector to revoke, and why."""

    department: str
    connector: str
    reason: str


def account_json(listed: ListedAccount) -> dict[str, Json]:
    """Return an account's document; nothing of its token but when it ends."""
    account = listed.account
    return {
        "name": account.name,
        "role": str(account.role),
        "department": account.department,
        "staff_number": account.person,
        "created_by": account.created_by,
        "created_at": account.created_at.isoformat(),
        "expires_at": account.expires_at.isoformat(),
        "last_used": moment_or_none(listed.last_used),
        "revoked_at": moment_or_none(account.revoked_at),
    }


def proposal_json(proposal: Proposal) -> dict[str, Json]:
    """Return a proposal's document; not the fingerprint, which who confirms gets from the account's holder."""
    return {
        "id": proposal.id,
        "kind": str(proposal.kind),
        "department": proposal.department,
        "subject": proposal.subject,
        "role": None if proposal.role is None else str(proposal.role),
        "staff_number": proposal.person,
        "proposed_by": proposal.proposed_by,
        "proposed_at": proposal.proposed_at.isoformat(),
        "expires_at": proposal.expires_at.isoformat(),
        "state": str(proposal.state),
        "decided_by": proposal.decided_by,
        "decided_at": moment_or_none(proposal.decided_at),
        "reason": proposal.reason,
    }


def certificate_json(certificate: Certificate) -> dict[str, Json]:
    """Return a certificate's document."""
    return {
        "serial": certificate.serial,
        "department": certificate.department,
        "connector": certificate.connector,
        "not_before": certificate.not_before.isoformat(),
        "not_after": certificate.not_after.isoformat(),
        "revoked_at": moment_or_none(certificate.revoked_at),
        "revoked_by": certificate.revoked_by,
        "revoked_because": certificate.revoked_because,
    }
