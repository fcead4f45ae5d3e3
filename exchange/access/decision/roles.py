"""Who may act at all: standing, roles, and the acts of control, out of two tables.

RULES says which role may act, and on whose behalf; what does not stand there is refused. FORBIDDEN is a second net
under it: the pairs that no rule may ever allow (an operator neither approves nor draws records, an auditor writes
nothing), so that a mistake in RULES stays without effect. Who requested a grant never decides on it, whatever the
role, and deciding is an act of a person.

Acts on records are not decided here: they have a table row in nobody's name, see `exchange.access.decision.policy`.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from schemas.access import Action, Actor, ActorKind, Allow, Deny, Grant, Role
from schemas.errors import Reason

__all__ = [
    "FORBIDDEN",
    "RECORD_ACTIONS",
    "RULES",
    "Scope",
    "Standing",
    "decide_control",
    "refuse_role",
    "refuse_standing",
]


class Standing(StrEnum):
    """What the identity and department registers say of an actor at this moment."""

    ACTIVE = "active"
    REVOKED = "revoked"
    EXPIRED = "expired"
    DEPARTMENT_INACTIVE = "department_inactive"


class Scope(StrEnum):
    """On whose behalf a role may act."""

    ANY = "any"  # of every department
    OWN = "own"  # of the actor's own
    SELF = "self"  # of the actor itself alone
    CONSUMER = "consumer"  # grants that the own department has or asks for
    PROVIDER = "provider"  # grants on resources of the own department
    PARTY = "party"  # either


_R, _A = Role, Action
_EVERYONE = dict.fromkeys(Role, Scope.ANY)

RULES: Final[Mapping[Action, Mapping[Role, Scope]]] = MappingProxyType(
    {
        _A.DEPARTMENT_REGISTER: {_R.DATA_AUTHORITY: Scope.ANY, _R.OPERATOR: Scope.ANY},
        _A.DEPARTMENT_READ: _EVERYONE,
        # Whoever can invite a connector can become it, and whoever can add an approver can become one: neither
        # is the operator's.
        _A.DEPARTMENT_INVITE: {_R.DATA_AUTHORITY: Scope.ANY, _R.SECURITY_OFFICER: Scope.OWN},
        _A.USER_ADD: {_R.DATA_AUTHORITY: Scope.ANY, _R.SECURITY_OFFICER: Scope.OWN},
        _A.CONNECTOR_ENROL: {_R.CONNECTOR: Scope.SELF},
        _A.CONNECTOR_RENEW: {_R.CONNECTOR: Scope.SELF},
        # Revoking only ever takes away, so in an emergency the operator may.
        _A.CONNECTOR_REVOKE: {
            _R.DATA_AUTHORITY: Scope.ANY,
            _R.OPERATOR: Scope.ANY,
            _R.SECURITY_OFFICER: Scope.OWN,
        },
        _A.CATALOGUE_DRAFT: {_R.CATALOGUE_EDITOR: Scope.OWN},
        _A.CATALOGUE_PUBLISH: {_R.DATA_AUTHORITY: Scope.ANY},  # State Council decree 809, Art. 12 and 16
        _A.CATALOGUE_ARCHIVE: {_R.DATA_AUTHORITY: Scope.ANY, _R.SHARING_OFFICE_HEAD: Scope.OWN},
        _A.CATALOGUE_READ: _EVERYONE,
        _A.SCHEMA_REGISTER: {_R.CATALOGUE_EDITOR: Scope.OWN},
        # Which of these an account without a right has, the registry's profile says (`registry.rights`).
        _A.SCHEMA_READ: _EVERYONE,
        _A.SCHEMA_READ_BY_ID: _EVERYONE,
        _A.SCHEMA_CONFIGURE: {_R.CATALOGUE_EDITOR: Scope.OWN, _R.DATA_AUTHORITY: Scope.ANY},
        _A.SCHEMA_DELETE: {_R.CATALOGUE_EDITOR: Scope.OWN, _R.DATA_AUTHORITY: Scope.ANY},
        # A classification is taken back by two people: whoever edits the catalogue asks, whoever answers for security
        # decides.
        _A.APPROVAL_ASK: {_R.CATALOGUE_EDITOR: Scope.OWN, _R.DATA_AUTHORITY: Scope.ANY},
        _A.APPROVAL_DECIDE: {_R.SECURITY_OFFICER: Scope.OWN, _R.DATA_AUTHORITY: Scope.ANY},
        # 809, Art. 20: the head of the sharing office signs, on both sides.
        _A.GRANT_SUBMIT: {_R.SHARING_OFFICE_HEAD: Scope.CONSUMER},
        _A.GRANT_APPROVE: {_R.SHARING_OFFICE_HEAD: Scope.PROVIDER},
        _A.GRANT_PROVISION: {_R.SHARING_OFFICE_HEAD: Scope.PROVIDER},
        _A.GRANT_REJECT: {_R.SHARING_OFFICE_HEAD: Scope.PROVIDER},
        # 809, Art. 27
        _A.GRANT_SUSPEND: {
            _R.SHARING_OFFICE_HEAD: Scope.PROVIDER,
            _R.SECURITY_OFFICER: Scope.PROVIDER,
            _R.DATA_AUTHORITY: Scope.ANY,
        },
        _A.GRANT_RESUME: {_R.SHARING_OFFICE_HEAD: Scope.PROVIDER, _R.DATA_AUTHORITY: Scope.ANY},
        _A.GRANT_TERMINATE: {_R.SHARING_OFFICE_HEAD: Scope.PROVIDER, _R.DATA_AUTHORITY: Scope.ANY},
        _A.GRANT_EXPIRE: {_R.OPERATOR: Scope.ANY},  # the pool's own timer acts as operator
        _A.GRANT_READ: {
            _R.SHARING_OFFICE_HEAD: Scope.PARTY,
            _R.SECURITY_OFFICER: Scope.PARTY,
            _R.CATALOGUE_EDITOR: Scope.PARTY,
            _R.DATA_AUTHORITY: Scope.ANY,
            _R.OPERATOR: Scope.ANY,
            _R.AUDITOR: Scope.ANY,
        },
        _A.AUDIT_READ: {_R.AUDITOR: Scope.ANY, _R.DATA_AUTHORITY: Scope.ANY, _R.SECURITY_OFFICER: Scope.OWN},
        _A.AUDIT_PROVE: {
            _R.AUDITOR: Scope.ANY,
            _R.DATA_AUTHORITY: Scope.ANY,
            _R.SECURITY_OFFICER: Scope.OWN,
            _R.SHARING_OFFICE_HEAD: Scope.OWN,
            _R.CONNECTOR: Scope.OWN,
        },
    }
)
"""Who may act, and on whose behalf. An action or a role that is not here is refused."""

RECORD_ACTIONS: Final = frozenset({_A.PUBLISH, _A.RESUME, _A.FETCH, _A.COMMIT})
"""Acts on records: only `decide` allows them."""

_READS = frozenset(
    {
        _A.DEPARTMENT_READ,
        _A.CATALOGUE_READ,
        _A.SCHEMA_READ,
        _A.SCHEMA_READ_BY_ID,
        _A.GRANT_READ,
        _A.AUDIT_READ,
        _A.AUDIT_PROVE,
    }
)
_APPROVALS = frozenset({_A.GRANT_APPROVE, _A.GRANT_PROVISION, _A.GRANT_REJECT, _A.GRANT_RESUME})
_OF_PERSONS = _APPROVALS | {_A.APPROVAL_DECIDE}

FORBIDDEN: Final[Mapping[Role, frozenset[Action]]] = MappingProxyType(
    {
        _R.AUDITOR: frozenset(Action) - _READS,
        _R.OPERATOR: RECORD_ACTIONS | _OF_PERSONS | {_A.GRANT_SUBMIT, _A.CATALOGUE_PUBLISH, _A.USER_ADD},
    }
)
"""What a role may never do, whatever RULES says (domain: forbidden pairs)."""

_POOL_ROLES = frozenset({_R.DATA_AUTHORITY, _R.OPERATOR, _R.AUDITOR})
_ALLOW = Allow()


def decide_control(  # noqa: PLR0911 - one return a rule
    actor: Actor | None,
    action: Action,
    *,
    standing: Standing | None,
    department: str | None = None,
    connector: str | None = None,
    grant: Grant | None = None,
    proven: bool | None = None,
    new_role: Role | None = None,
) -> Allow | Deny:
    """Decide an act of control: anything but records.

    Checked in this order: identity and standing, forbidden pair, role, the grant known and proven (where one is
    given or needed), on whose behalf, the same person, the role that is given away.

    Args:
        actor: who acts; None = nobody proved to be anyone.
        action: what is asked.
        standing: of the actor's account or certificate, and of its department; None = unknown.
        department: the one that the act concerns (invited, catalogued, listed …); None = none or unknown.
        connector: the one that the act concerns (Scope.SELF).
        grant: the grant that the act concerns, the request as drafted for GRANT_SUBMIT.
        proven: whether the grant's hash is that of the audit log; not asked for GRANT_SUBMIT.
        new_role: the role that USER_ADD gives.
    """
    if actor is None or standing is not Standing.ACTIVE:
        return refuse_standing(actor, standing)
    scope = RULES.get(action, {}).get(actor.role)
    if scope is None or action in FORBIDDEN.get(actor.role, ()):
        return refuse_role(actor, action)
    # One account acts for one person: a program holds no office (809, Art. 20: the head signs).
    if action in _OF_PERSONS and actor.kind is not ActorKind.HUMAN:
        return Deny(Reason.ROLE_FORBIDDEN, f"{action} is an act of a person; a program may not")
    if grant is None and (scope in {Scope.CONSUMER, Scope.PROVIDER} or action in _APPROVALS):
        return Deny(Reason.GRANT_UNKNOWN, "no such grant; ask for the list of your grants")
    if grant is not None and action is not _A.GRANT_SUBMIT and not proven:
        return Deny(
            Reason.GRANT_FORGED, "the grant is not the one that the audit log proves; an auditor must look at it"
        )
    refusal = _out_of_scope(actor, scope, department, connector, grant)
    if refusal is not None:
        return refusal
    if grant is not None and action in _APPROVALS and actor.id == grant.requested_by:
        return Deny(Reason.SAME_PERSON, "who requested a grant does not decide on it; another person must")
    if action is _A.USER_ADD and not (
        new_role is not None
        and new_role is not Role.CONNECTOR  # programs are enrolled, with a certificate
        and (new_role not in _POOL_ROLES or actor.role is Role.DATA_AUTHORITY)
    ):
        return Deny(
            Reason.ROLE_FORBIDDEN, f"{actor.role} may not give the role {new_role or 'that is not stated'} to anybody"
        )
    return _ALLOW


def _out_of_scope(  # noqa: PLR0911 - one return a scope
    actor: Actor, scope: Scope, department: str | None, connector: str | None, grant: Grant | None
) -> Deny | None:
    own = actor.department
    match scope:
        case Scope.ANY:
            return None
        case Scope.CONSUMER if grant is not None and own and own == grant.consumer:
            return None
        case Scope.CONSUMER:
            return Deny(Reason.GRANT_OTHER_CONSUMER, "the grant is asked for by another department than yours")
        case Scope.PROVIDER if grant is not None and own and own == grant.provider:
            return None
        case Scope.PROVIDER:
            return Deny(Reason.NOT_PROVIDER, "the grant's resource is provided by another department than yours")
        case Scope.PARTY if grant is not None and own and own in {grant.consumer, grant.provider}:
            return None
        case Scope.PARTY | Scope.OWN if grant is None and own and own == department:
            return None
        case Scope.SELF if own and own == department and actor.id == connector:
            return None
        case _:
            return Deny(Reason.OTHER_DEPARTMENT, f"{actor.role} acts for its own department alone")


def refuse_standing(actor: Actor | None, standing: Standing | None) -> Deny:
    """Say why an actor of unknown or lost standing is refused."""
    if actor is None or standing is None:
        return Deny(Reason.NO_IDENTITY, "the caller has not proved who it is; present a certificate or a token")
    if standing is Standing.REVOKED:
        return Deny(Reason.CERTIFICATE_REVOKED, "the certificate or account has been revoked; enrol anew")
    if standing is Standing.EXPIRED:
        return Deny(Reason.CERTIFICATE_EXPIRED, "the certificate has expired; enrol anew")
    return Deny(Reason.DEPARTMENT_INACTIVE, "the department is no longer active; ask the data authority")


def refuse_role(actor: Actor, action: Action) -> Deny:
    """Say why a role does not carry an action."""
    if action in FORBIDDEN.get(actor.role, ()):
        return Deny(Reason.ROLE_FORBIDDEN, f"{actor.role} and {action} are a forbidden pair; another role must act")
    return Deny(Reason.ROLE_MISSING, f"{actor.role} may not {action}; ask for an account with the role that may")
