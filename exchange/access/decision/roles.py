"""Role-based access control for everything but records: standing, roles, and the acts of administration and grants.

RULES says which role may act, and on whose behalf; what is not in it is refused. Its rows for grants are derived from
`exchange.access.decision.grant_rules`, which the grants' life cycle reads too, and those for the procedure of catalogue
entries from `registry.catalogue.life_cycle`.

FORBIDDEN is a second, independent check: the pairs that no rule may ever allow (an operator neither approves nor reads
records, an auditor writes nothing). It is written out and derived from nothing, so that a mistake in a rule has no
effect. The person who requested a grant never decides on it, under whatever account or role, and a decision is an act
of a person.

Acts on records have no row here: `exchange.access.decision.policy` decides them.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from exchange.access.decision.grant_rules import GRANT_RULES, GrantRule, Party
from registry.catalogue.life_cycle import RULES as ENTRY_RULES
from registry.catalogue.life_cycle import rights_of_action
from registry.governance.two_persons import refuse_second_signature
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
    "rights_of",
]


class Standing(StrEnum):
    """What the identity and department registers say of an actor at this moment."""

    ACTIVE = "active"
    REVOKED = "revoked"
    DEPARTMENT_INACTIVE = "department_inactive"
    CONTRACT_ENDED = "contract_ended"


class Scope(StrEnum):
    """On whose behalf a role may act."""

    ANY = "any"  # of every department
    OWN = "own"  # of the actor's own
    SELF = "self"  # of the actor itself alone
    CONSUMER = "consumer"  # grants that the own department has or asks for
    PROVIDER = "provider"  # grants on resources of the own department
    PARTY = "party"  # either


_SCOPES: Mapping[Party, Scope] = MappingProxyType(
    {Party.CONSUMER: Scope.CONSUMER, Party.PROVIDER: Scope.PROVIDER, Party.OVERSEER: Scope.PROVIDER}
)


def _rights(rule: GrantRule) -> Mapping[Role, Scope]:
    """Return the roles of a grant rule: the pool's own for every department, a department's for its own side."""
    return {role: Scope.ANY if role in rule.pool_roles else _SCOPES[rule.party] for role in rule.roles}


def _entry_rights(action: Action) -> Mapping[Role, Scope]:
    """Return the roles of an act on entries: the authority for every department, a department's for its own."""
    return {role: Scope.ANY if every else Scope.OWN for role, every in rights_of_action(action).items()}


_R, _A = Role, Action
_ON_ENTRIES = frozenset(rule.action for rule in ENTRY_RULES) - {  # these have rows of their own below
    _A.CATALOGUE_DRAFT,
    _A.CATALOGUE_PUBLISH,
    _A.CATALOGUE_ARCHIVE,
}
_VIOLATION_DECISIONS = (
    _A.VIOLATION_CONFIRM,
    _A.VIOLATION_DISMISS,
    _A.VIOLATION_ORDER,
    _A.VIOLATION_ACCEPT,
    _A.VIOLATION_ESCALATE,
    _A.VIOLATION_CLOSE,
)
_EVERYONE: Mapping[Role, Scope] = {role: Scope.ANY for role in Role if role is not Role.BOOTSTRAP}
_SUPERVISING: Mapping[Role, Scope] = {
    Role.AUDITOR: Scope.ANY,
    Role.DATA_AUTHORITY: Scope.ANY,
    Role.SECURITY_OFFICER: Scope.OWN,
    Role.SHARING_OFFICE_HEAD: Scope.OWN,
}
_WITH_ACCOUNT: Mapping[Role, Scope] = {role: scope for role, scope in _EVERYONE.items() if role is not Role.CONNECTOR}
_OFFICE = (_R.SHARING_OFFICE_HEAD, _R.SECURITY_OFFICER, _R.CATALOGUE_EDITOR)
_ON_GRANTS = {rule.action: rule for rule in GRANT_RULES.values()}

RULES: Final[Mapping[Action, Mapping[Role, Scope]]] = MappingProxyType(
    {
        _A.DEPARTMENT_REGISTER: {_R.DATA_AUTHORITY: Scope.ANY, _R.OPERATOR: Scope.ANY},
        _A.DEPARTMENT_READ: _EVERYONE,
        _A.DEPARTMENT_CHANGE: {_R.DATA_AUTHORITY: Scope.ANY},  # rename, merge, deactivate
        _A.DEPARTMENT_SUCCEED: {_R.DATA_AUTHORITY: Scope.ANY},  # what follows a merger, and is named in it
        _A.GRANT_SUCCEED: {_R.DATA_AUTHORITY: Scope.ANY},
        # An account that can invite a connector can become it, and one that can add an approver can become one: the
        # operator does neither.
        _A.DEPARTMENT_INVITE: {_R.DATA_AUTHORITY: Scope.ANY, _R.SECURITY_OFFICER: Scope.OWN},
        _A.USER_ADD: {
            _R.DATA_AUTHORITY: Scope.ANY,
            _R.SECURITY_OFFICER: Scope.OWN,
            _R.BOOTSTRAP: Scope.ANY,  # the first two data authorities alone
        },
        # Both are proposed by one person and confirmed by another (`exchange.identity.proposals`).
        _A.PROPOSAL_CONFIRM: {_R.DATA_AUTHORITY: Scope.ANY, _R.SECURITY_OFFICER: Scope.OWN},
        _A.PROPOSAL_REFUSE: {_R.DATA_AUTHORITY: Scope.ANY, _R.SECURITY_OFFICER: Scope.OWN},
        # What is done in a department's name is told to it.
        _A.USER_READ: {
            _R.DATA_AUTHORITY: Scope.ANY,
            _R.OPERATOR: Scope.ANY,
            _R.AUDITOR: Scope.ANY,
            _R.SECURITY_OFFICER: Scope.OWN,
            _R.SHARING_OFFICE_HEAD: Scope.OWN,
        },
        _A.USER_ROTATE: _WITH_ACCOUNT,  # one's own token, which only its holder can know
        _A.USER_REVOKE: {
            _R.DATA_AUTHORITY: Scope.ANY,
            _R.OPERATOR: Scope.ANY,
            _R.SECURITY_OFFICER: Scope.OWN,
        },
        _A.CONNECTOR_ENROL: {_R.CONNECTOR: Scope.SELF},
        _A.CONNECTOR_RENEW: {_R.CONNECTOR: Scope.SELF},
        _A.CONNECTOR_REPORT: {_R.CONNECTOR: Scope.SELF},
        _A.CONNECTOR_RECONCILE: {_R.CONNECTOR: Scope.SELF},
        # Revoking only ever takes away, so in an emergency the operator may.
        _A.CONNECTOR_REVOKE: {
            _R.DATA_AUTHORITY: Scope.ANY,
            _R.OPERATOR: Scope.ANY,
            _R.SECURITY_OFFICER: Scope.OWN,
        },
        _A.CONNECTOR_READ: {
            _R.DATA_AUTHORITY: Scope.ANY,
            _R.OPERATOR: Scope.ANY,
            _R.AUDITOR: Scope.ANY,
            _R.SECURITY_OFFICER: Scope.OWN,
            _R.SHARING_OFFICE_HEAD: Scope.OWN,
        },
        # A department asks within its duty list, so it does not write it.
        _A.DUTY_CHANGE: {_R.DATA_AUTHORITY: Scope.ANY},
        _A.DUTY_READ: _EVERYONE,
        _A.CATALOGUE_DRAFT: {_R.CATALOGUE_EDITOR: Scope.OWN},
        _A.CATALOGUE_PUBLISH: {_R.DATA_AUTHORITY: Scope.ANY},  # State Council decree 809, Art. 12 and 16
        _A.CATALOGUE_ARCHIVE: {_R.DATA_AUTHORITY: Scope.ANY, _R.SHARING_OFFICE_HEAD: Scope.OWN},
        _A.CATALOGUE_RETAIN: {_R.DATA_AUTHORITY: Scope.ANY},  # a shorter one removes records
        _A.CATALOGUE_ZONE: {_R.DATA_AUTHORITY: Scope.ANY},
        _A.CATALOGUE_READ: _EVERYONE,
        # The dictionary is the whole pool's, and who is the source of what is the authority's word (Art. 19).
        _A.ELEMENT_DEFINE: {_R.DATA_AUTHORITY: Scope.ANY},
        _A.ELEMENT_LEAD: {_R.DATA_AUTHORITY: Scope.ANY},
        _A.ELEMENT_READ: _EVERYONE,
        _A.SCHEMA_REGISTER: {_R.CATALOGUE_EDITOR: Scope.OWN},
        # Which of these an account without a right has, `registry.governance.subject_rights` says.
        _A.SCHEMA_READ: _EVERYONE,
        _A.SCHEMA_READ_BY_ID: _EVERYONE,
        _A.SCHEMA_CONFIGURE: {_R.CATALOGUE_EDITOR: Scope.OWN, _R.DATA_AUTHORITY: Scope.ANY},
        _A.SCHEMA_DELETE: {_R.CATALOGUE_EDITOR: Scope.OWN, _R.DATA_AUTHORITY: Scope.ANY},
        # A classification is lowered by two accounts: one asks, another decides (`registry.governance.approvals`).
        _A.APPROVAL_ASK: {_R.CATALOGUE_EDITOR: Scope.OWN, _R.DATA_AUTHORITY: Scope.ANY},
        _A.APPROVAL_DECIDE: {_R.SECURITY_OFFICER: Scope.OWN, _R.DATA_AUTHORITY: Scope.ANY},
        _A.GRANT_READ: {
            _R.SHARING_OFFICE_HEAD: Scope.PARTY,
            _R.SECURITY_OFFICER: Scope.PARTY,
            _R.CATALOGUE_EDITOR: Scope.PARTY,
            _R.DATA_AUTHORITY: Scope.ANY,
            _R.OPERATOR: Scope.ANY,
            _R.AUDITOR: Scope.ANY,
        },
        # Two persons: the department that holds the duty to erase (PIPL Art. 47) proposes, its head or the authority
        # confirms. The pool itself carries it out.
        _A.ERASURE_PROPOSE: {
            _R.SHARING_OFFICE_HEAD: Scope.OWN,
            _R.SECURITY_OFFICER: Scope.OWN,
            _R.DATA_AUTHORITY: Scope.ANY,
        },
        _A.ERASURE_CONFIRM: {_R.SHARING_OFFICE_HEAD: Scope.OWN, _R.DATA_AUTHORITY: Scope.ANY},
        _A.ERASURE_REJECT: {_R.SHARING_OFFICE_HEAD: Scope.OWN, _R.DATA_AUTHORITY: Scope.ANY},
        _A.ERASURE_COMPLETE: {_R.OPERATOR: Scope.ANY},
        _A.ERASURE_READ: {
            _R.SHARING_OFFICE_HEAD: Scope.OWN,
            _R.SECURITY_OFFICER: Scope.OWN,
            _R.DATA_AUTHORITY: Scope.ANY,
            _R.OPERATOR: Scope.ANY,
            _R.AUDITOR: Scope.ANY,
        },
        # The authority alone decides on a violation; the department concerned reads its cases and is heard. A party of
        # a grant may report the other one; that it is the other one, `exchange.control.violations` checks.
        _A.VIOLATION_DETECT: {_R.OPERATOR: Scope.ANY},  # the pool's own timer
        _A.VIOLATION_REPORT: {
            _R.DATA_AUTHORITY: Scope.ANY,
            _R.SHARING_OFFICE_HEAD: Scope.PARTY,
            _R.SECURITY_OFFICER: Scope.PARTY,
        },
        _A.VIOLATION_READ: {
            _R.DATA_AUTHORITY: Scope.ANY,
            _R.AUDITOR: Scope.ANY,
            _R.SHARING_OFFICE_HEAD: Scope.OWN,
            _R.SECURITY_OFFICER: Scope.OWN,
        },
        _A.VIOLATION_REPLY: {
            _R.DATA_AUTHORITY: Scope.ANY,  # to a case against itself alone
            _R.SHARING_OFFICE_HEAD: Scope.OWN,
            _R.SECURITY_OFFICER: Scope.OWN,
        },
        **{action: {_R.DATA_AUTHORITY: Scope.ANY} for action in _VIOLATION_DECISIONS},
        _A.AUDIT_READ: {
            _R.AUDITOR: Scope.ANY,
            _R.DATA_AUTHORITY: Scope.ANY,
            _R.SECURITY_OFFICER: Scope.OWN,
            _R.SHARING_OFFICE_HEAD: Scope.OWN,
        },
        # A role that may search the log may export what it finds; each export has entries of its own.
        _A.AUDIT_EXPORT: {
            _R.AUDITOR: Scope.ANY,
            _R.DATA_AUTHORITY: Scope.ANY,
            _R.SECURITY_OFFICER: Scope.OWN,
            _R.SHARING_OFFICE_HEAD: Scope.OWN,
        },
        _A.AUDIT_PROVE: {
            _R.AUDITOR: Scope.ANY,
            _R.DATA_AUTHORITY: Scope.ANY,
            _R.SECURITY_OFFICER: Scope.OWN,
            _R.SHARING_OFFICE_HEAD: Scope.OWN,
            _R.CONNECTOR: Scope.OWN,
        },
        # Two persons: what is destroyed is the trace of what was published, and cannot be made again.
        _A.AUDIT_KEYS_READ: {_R.AUDITOR: Scope.ANY, _R.DATA_AUTHORITY: Scope.ANY, _R.OPERATOR: Scope.ANY},
        _A.AUDIT_KEYS_PROPOSE: {_R.DATA_AUTHORITY: Scope.ANY, _R.OPERATOR: Scope.ANY},
        _A.AUDIT_KEYS_PRUNE: {_R.DATA_AUTHORITY: Scope.ANY},
        # A restored pool releases nothing before two persons have settled what nobody can know.
        _A.RESTORE_READ: {_R.AUDITOR: Scope.ANY, _R.DATA_AUTHORITY: Scope.ANY, _R.OPERATOR: Scope.ANY},
        _A.RESTORE_PROPOSE: {_R.DATA_AUTHORITY: Scope.ANY, _R.OPERATOR: Scope.ANY},
        _A.RESTORE_SETTLE: {_R.DATA_AUTHORITY: Scope.ANY},
        # Two persons: what they settle is the time of every entry from then on.
        _A.CLOCK_READ: {_R.AUDITOR: Scope.ANY, _R.DATA_AUTHORITY: Scope.ANY, _R.OPERATOR: Scope.ANY},
        _A.CLOCK_PROPOSE: {_R.DATA_AUTHORITY: Scope.ANY, _R.OPERATOR: Scope.ANY},
        _A.CLOCK_SETTLE: {_R.DATA_AUTHORITY: Scope.ANY},
        # Two persons: by these rules every deadline is computed. Who proposed a change may withdraw it.
        _A.RULES_READ: _EVERYONE,
        _A.RULES_PROPOSE: {_R.DATA_AUTHORITY: Scope.ANY},
        _A.RULES_CONFIRM: {_R.DATA_AUTHORITY: Scope.ANY},
        _A.RULES_REJECT: {_R.DATA_AUTHORITY: Scope.ANY},
        # Corrections (decree 809, Art. 26): a consumer that may see a value doubts it, its source department answers;
        # a test holds these rows against `exchange.corrections.rules`. The pool itself tells the others who have it.
        _A.CORRECTION_OPEN: dict.fromkeys(_OFFICE, Scope.CONSUMER),
        _A.CORRECTION_WITHDRAW: dict.fromkeys(_OFFICE, Scope.OWN),
        _A.CORRECTION_ACKNOWLEDGE: dict.fromkeys(_OFFICE, Scope.OWN),
        _A.CORRECTION_READ: {
            **dict.fromkeys(_OFFICE, Scope.OWN),
            _R.DATA_AUTHORITY: Scope.ANY,
            _R.AUDITOR: Scope.ANY,
        },
        # Claim and record hold values of a person: for who raised the ticket and who answers it, and for nobody else.
        _A.CORRECTION_REVEAL: dict.fromkeys(_OFFICE, Scope.OWN),
        _A.CORRECTION_ACCEPT: {_R.SHARING_OFFICE_HEAD: Scope.OWN, _R.CATALOGUE_EDITOR: Scope.OWN},
        _A.CORRECTION_TRANSFER: {_R.SHARING_OFFICE_HEAD: Scope.OWN, _R.DATA_AUTHORITY: Scope.ANY},
        _A.CORRECTION_CORRECT: {_R.SHARING_OFFICE_HEAD: Scope.OWN, _R.CATALOGUE_EDITOR: Scope.OWN},
        _A.CORRECTION_CONFIRM: {_R.SHARING_OFFICE_HEAD: Scope.OWN},
        _A.CORRECTION_REFUSE: {_R.SHARING_OFFICE_HEAD: Scope.OWN},
        _A.CORRECTION_NOTIFY: {_R.OPERATOR: Scope.ANY},
        _A.CORRECTION_OVERDUE: {_R.OPERATOR: Scope.ANY},
        # Figures and events of a department are for its own office, and for those who supervise all (Art. 38).
        _A.REPORT_READ: _SUPERVISING,
        _A.SUPERVISION_READ: _SUPERVISING,
        _A.TASK_READ: _WITH_ACCOUNT,  # one's own tasks: each of their acts is decided on by itself
        _A.REQUEST_CHECK: {_R.SHARING_OFFICE_HEAD: Scope.CONSUMER},  # who may file it
        _A.REQUEST_DRAFT: {_R.SHARING_OFFICE_HEAD: Scope.OWN},
        # The hub: its rules are proposed, agreed to by each lead department that they change, and activated. What is
        # drawn about a subject, `decide` decides; what a person sees of itself, nobody else does yet.
        _A.HUB_RULES_READ: _EVERYONE,
        _A.HUB_RULES_PROPOSE: {_R.CATALOGUE_EDITOR: Scope.OWN, _R.DATA_AUTHORITY: Scope.ANY},
        _A.HUB_RULES_AGREE: {_R.SHARING_OFFICE_HEAD: Scope.OWN},
        _A.HUB_RULES_ACTIVATE: {_R.DATA_AUTHORITY: Scope.ANY},
        _A.HUB_RULES_REPLAY: {_R.OPERATOR: Scope.ANY},
        _A.HUB_RULES_BACK_OUT: {_R.DATA_AUTHORITY: Scope.ANY, _R.OPERATOR: Scope.ANY},
        # Two persons: what may be asked about a person is theirs to say. Who proposed it may withdraw it.
        _A.HUB_PREDICATE_READ: _EVERYONE,
        _A.HUB_PREDICATE_PROPOSE: {_R.DATA_AUTHORITY: Scope.ANY},
        _A.HUB_PREDICATE_CONFIRM: {_R.DATA_AUTHORITY: Scope.ANY},
        _A.HUB_PREDICATE_REJECT: {_R.DATA_AUTHORITY: Scope.ANY},
        # A golden record is nobody's own: the lead department of each field consents (decree 809, Art. 25).
        _A.HUB_CONSENT_GIVE: {_R.SHARING_OFFICE_HEAD: Scope.OWN},
        _A.HUB_CONSENT_WITHDRAW: {_R.SHARING_OFFICE_HEAD: Scope.OWN, _R.SECURITY_OFFICER: Scope.OWN},
        _A.HUB_ERASE: {_R.DATA_AUTHORITY: Scope.ANY},
        _A.HUB_REWRAP: {_R.OPERATOR: Scope.ANY},
        _A.HUB_OWN: {},
        _A.REQUEST_SCREEN: {},  # of refusals alone: a text that holds a personal number is refused to everybody
        **{action: _rights(rule) for action, rule in _ON_GRANTS.items()},
        **{action: _entry_rights(action) for action in sorted(_ON_ENTRIES)},
    }
)
"""Who may act, and on whose behalf. An action or a role that is not here is refused."""

RECORD_ACTIONS: Final = frozenset(
    {
        _A.PUBLISH,
        _A.RESUME,
        _A.FETCH,
        _A.COMMIT,
        _A.HUB_LOOKUP,
        _A.HUB_VERIFY,
        _A.HUB_PREFILL,
        _A.HUB_INSTANT,
    }
)
"""Acts on records: only `decide` allows them."""

_READS = frozenset(
    {
        _A.DEPARTMENT_READ,
        _A.CATALOGUE_READ,
        _A.ELEMENT_READ,
        _A.DUTY_READ,
        _A.SCHEMA_READ,
        _A.SCHEMA_READ_BY_ID,
        _A.GRANT_READ,
        _A.VIOLATION_READ,
        _A.ERASURE_READ,
        _A.AUDIT_READ,
        _A.AUDIT_PROVE,
        _A.AUDIT_EXPORT,
        _A.AUDIT_KEYS_READ,
        _A.RESTORE_READ,
        _A.CLOCK_READ,
        _A.USER_READ,
        _A.CONNECTOR_READ,
        _A.RULES_READ,
        _A.REPORT_READ,
        _A.SUPERVISION_READ,
        _A.CORRECTION_READ,
        _A.TASK_READ,
        _A.HUB_RULES_READ,
        _A.HUB_PREDICATE_READ,
    }
)
_OF_CORRECTIONS = frozenset(
    {
        _A.CORRECTION_WITHDRAW,
        _A.CORRECTION_ACCEPT,
        _A.CORRECTION_TRANSFER,
        _A.CORRECTION_CORRECT,
        _A.CORRECTION_CONFIRM,
        _A.CORRECTION_REFUSE,
    }
)

FORBIDDEN: Final[Mapping[Role, frozenset[Action]]] = MappingProxyType(
    {
        _R.AUDITOR: frozenset(Action) - _READS - {_A.USER_ROTATE},  # nothing is written but its own token
        _R.BOOTSTRAP: frozenset(Action) - {_A.USER_ADD},
        _R.OPERATOR: RECORD_ACTIONS
        | _OF_CORRECTIONS
        | {
            _A.CORRECTION_OPEN,
            _A.CORRECTION_REVEAL,
            _A.CORRECTION_ACKNOWLEDGE,
            _A.GRANT_SUBMIT,
            _A.GRANT_CONFIRM,
            _A.GRANT_APPROVE,
            _A.GRANT_PROVISION,
            _A.GRANT_REJECT,
            _A.GRANT_RESUME,
            _A.GRANT_COUNTERSIGN,
            _A.GRANT_WITHDRAW_SIGNATURE,
            _A.GRANT_CONCLUDE,
            _A.GRANT_COMPLETE,
            _A.GRANT_CHANGE_SERVICE,
            _A.GRANT_END_BY_AGREEMENT,
            _A.REQUEST_NEED_MORE,
            _A.REQUEST_RESUBMIT,
            _A.REQUEST_WITHDRAW,
            _A.REQUEST_EXTEND,
            _A.REQUEST_DISPUTE,
            _A.REQUEST_UPHOLD,
            _A.REQUEST_OVERTURN,
            _A.APPROVAL_DECIDE,
            _A.CATALOGUE_PUBLISH,
            _A.CATALOGUE_RETAIN,
            _A.CATALOGUE_SUBMIT,
            _A.CATALOGUE_APPROVE,
            _A.CATALOGUE_RETURN,
            _A.CATALOGUE_CHANGE,
            _A.CATALOGUE_EXTEND,
            _A.CATALOGUE_SUSPEND,
            _A.CATALOGUE_RESUME,
            _A.CATALOGUE_ANNOUNCE,
            _A.CATALOGUE_WITHDRAW,
            _A.ELEMENT_DEFINE,
            _A.ELEMENT_LEAD,
            _A.CATALOGUE_ZONE,
            _A.DUTY_CHANGE,
            _A.VIOLATION_REPORT,
            _A.VIOLATION_REPLY,
            *_VIOLATION_DECISIONS,
            _A.USER_ADD,
            _A.ERASURE_PROPOSE,
            _A.ERASURE_CONFIRM,
            _A.ERASURE_REJECT,
            _A.PROPOSAL_CONFIRM,
            _A.DEPARTMENT_INVITE,
            _A.DEPARTMENT_CHANGE,
            _A.AUDIT_KEYS_PRUNE,
            _A.RESTORE_SETTLE,
            _A.CLOCK_SETTLE,
            _A.RULES_PROPOSE,
            _A.RULES_CONFIRM,
            _A.RULES_REJECT,
            _A.HUB_RULES_PROPOSE,
            _A.HUB_RULES_AGREE,
            _A.HUB_RULES_ACTIVATE,
            _A.HUB_PREDICATE_PROPOSE,
            _A.HUB_PREDICATE_CONFIRM,
            _A.HUB_PREDICATE_REJECT,
            _A.HUB_CONSENT_GIVE,
            _A.HUB_CONSENT_WITHDRAW,
            _A.HUB_ERASE,
            _A.HUB_OWN,
        },
    }
)
"""What a role may never do, whatever RULES says."""

_OF_PERSONS = {action for action, rule in _ON_GRANTS.items() if rule.person} | {
    *(_ON_ENTRIES - {rule.action for rule in ENTRY_RULES if not rule.person}),
    *_OF_CORRECTIONS,
    _A.APPROVAL_DECIDE,
    _A.CATALOGUE_RETAIN,
    _A.ELEMENT_LEAD,
    _A.CATALOGUE_ZONE,
    _A.DUTY_CHANGE,
    _A.VIOLATION_REPORT,
    _A.VIOLATION_REPLY,
    *_VIOLATION_DECISIONS,
    _A.ERASURE_PROPOSE,
    _A.ERASURE_CONFIRM,
    _A.ERASURE_REJECT,
    _A.PROPOSAL_CONFIRM,
    _A.AUDIT_KEYS_PROPOSE,
    _A.AUDIT_KEYS_PRUNE,
    _A.RESTORE_PROPOSE,
    _A.RESTORE_SETTLE,
    _A.CLOCK_PROPOSE,
    _A.CLOCK_SETTLE,
    _A.RULES_PROPOSE,
    _A.RULES_CONFIRM,
    _A.RULES_REJECT,
    _A.HUB_RULES_PROPOSE,
    _A.HUB_RULES_AGREE,
    _A.HUB_RULES_ACTIVATE,
    _A.HUB_PREDICATE_PROPOSE,
    _A.HUB_PREDICATE_CONFIRM,
    _A.HUB_PREDICATE_REJECT,
    _A.HUB_CONSENT_GIVE,
    _A.HUB_CONSENT_WITHDRAW,
    _A.HUB_ERASE,
}
_NOT_BY_REQUESTER = {action for action, rule in _ON_GRANTS.items() if rule.not_by_requester}
_POOL_ROLES = frozenset({_R.DATA_AUTHORITY, _R.OPERATOR, _R.AUDITOR})
_ALLOW = Allow()
_NOBODY: Mapping[str, str] = MappingProxyType({})


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
    persons: Mapping[str, str] = _NOBODY,
) -> Allow | Deny:
    """Decide an act on anything but records.

    Checked in this order: identity and standing, role and forbidden pair, person or program, the grant known and
    proven (where one is given or needed), on whose behalf, not by the requester, the role that is given away.

    Args:
        actor: who acts; None = the caller is not authenticated.
        action: what is asked.
        standing: of the actor's account or certificate, and of its department; None = unknown.
        department: the one that the act concerns (invited, catalogued, listed …); None = none or unknown.
        connector: the one that the act concerns (Scope.SELF).
        grant: the grant that the act concerns, the request as drafted for GRANT_SUBMIT.
        proven: whether the stored version is the one that the pool wrote; not asked for GRANT_SUBMIT.
        new_role: the role that USER_ADD gives.
        persons: account name → staff number, of the actor and of who requested the grant; who is not in it is unknown.
    """
    if actor is None or standing is not Standing.ACTIVE:
        return refuse_standing(actor, standing)
    scope = RULES.get(action, {}).get(actor.role)
    if scope is None or action in FORBIDDEN.get(actor.role, ()):
        return refuse_role(actor, action)
    # One account acts for one person: a program holds no office (State Council decree 809, Art. 20: the head signs).
    if action in _OF_PERSONS and actor.kind is not ActorKind.HUMAN:
        return Deny(Reason.ROLE_FORBIDDEN, f"{action} is an act of a person; a program may not")
    if grant is None and (scope in {Scope.CONSUMER, Scope.PROVIDER} or action in _NOT_BY_REQUESTER):
        return Deny(Reason.GRANT_UNKNOWN, "no such grant; ask for the list of your grants")
    if grant is not None and action is not _A.GRANT_SUBMIT and not proven:
        return Deny(
            Reason.GRANT_FORGED, "the stored grant is not the one that the pool wrote; an auditor must look at it"
        )
    refusal = _out_of_scope(actor, scope, department, connector, grant)
    if refusal is not None:
        return refusal
    if grant is not None and action in _NOT_BY_REQUESTER:
        refusal = _already_signed(actor, action, grant, persons)
        if refusal is not None:
            return refusal
    if action is _A.USER_ADD and not _may_add(actor.role, new_role):
        return Deny(
            Reason.ROLE_FORBIDDEN, f"{actor.role} may not give the role {new_role or 'that is not stated'} to anyone"
        )
    return _ALLOW


def rights_of(role: Role) -> dict[Action, Scope]:
    """Return what a role may do, and on whose behalf; acts on records (`RECORD_ACTIONS`) are not in it."""
    forbidden = FORBIDDEN.get(role, frozenset())
    return {action: roles[role] for action, roles in RULES.items() if role in roles and action not in forbidden}


def _already_signed(actor: Actor, action: Action, grant: Grant, persons: Mapping[str, str]) -> Deny | None:
    """Return the denial of an actor who requested the grant, or signs it twice as one person."""
    refusal = refuse_second_signature(grant.requested_by, actor.id, persons)
    if refusal is None and action is _A.GRANT_APPROVE and grant.confirmed_by is not None:
        refusal = refuse_second_signature(grant.confirmed_by, actor.id, persons)
    if refusal is None and action is _A.GRANT_COUNTERSIGN and grant.approved_by is not None:
        refusal = refuse_second_signature(grant.approved_by, actor.id, persons)
    return refusal


def _may_add(role: Role, new_role: Role | None) -> bool:
    """Return whether a role may propose an account of another; a program is enrolled and has none."""
    if new_role in {None, Role.CONNECTOR, Role.BOOTSTRAP}:
        return False
    if role is Role.BOOTSTRAP:
        return new_role is Role.DATA_AUTHORITY
    return new_role not in _POOL_ROLES or role is Role.DATA_AUTHORITY


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
    """Return the denial of an actor that is unknown or no longer active."""
    if actor is None or standing is None:
        return Deny(Reason.NO_IDENTITY, "the caller has not proved who it is; present a certificate or a token")
    if standing is Standing.REVOKED:
        return Deny(Reason.CERTIFICATE_REVOKED, "the certificate or account has been revoked; enrol again")
    if standing is Standing.CONTRACT_ENDED:
        return Deny(Reason.CONTRACT_ENDED, "the contract has ended; ask the department that commissioned it")
    return Deny(Reason.DEPARTMENT_INACTIVE, "the department is no longer active; ask the data authority")


def refuse_role(actor: Actor, action: Action) -> Deny:
    """Return the denial of an action that a role may not do."""
    if action in FORBIDDEN.get(actor.role, ()):
        return Deny(Reason.ROLE_FORBIDDEN, f"{actor.role} and {action} are a forbidden pair; another role must act")
    return Deny(Reason.ROLE_MISSING, f"{actor.role} may not {action}; ask for an account with the role that may")
