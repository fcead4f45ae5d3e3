"""Error classes of the pool, grouped by who must act, and their reason codes.

    PoolError
    ├── RefusedError      the caller may not: ask the owner, or ask for something else
    ├── InvalidError      the caller sent something wrong: correct it, then send it again
    ├── ConflictError     the caller and the pool disagree about the state: read the current state first
    ├── GoneError         the position asked for no longer exists: start again from the one named
    ├── UnavailableError  something is down or overloaded: retry later
    └── CorruptError      an operator must look: stored bytes do not prove what they claim

Every error carries one `Reason`, a code of a closed list; texts for people are looked up by it, and logs carry
the code alone. A message says what was got, what was expected and what to do. It never holds a record's value
or a national identifier.
"""

from collections.abc import Mapping
from enum import StrEnum

__all__ = [
    "ERROR_CLASSES",
    "ConflictError",
    "CorruptError",
    "GoneError",
    "InvalidError",
    "PoolError",
    "Reason",
    "RefusedError",
    "UnavailableError",
]


class Reason(StrEnum):
    """Reason code of a refusal or failure. Append only: a code, once published, keeps its meaning."""

    # access: one decision names the first rule that failed, in the order in which they are checked
    NO_IDENTITY = "no_identity"
    CERTIFICATE_REVOKED = "certificate_revoked"
    CERTIFICATE_EXPIRED = "certificate_expired"
    DEPARTMENT_INACTIVE = "department_inactive"
    ROLE_MISSING = "role_missing"
    ROLE_FORBIDDEN = "role_forbidden"
    NOT_PROVIDER = "not_provider"
    RESOURCE_UNKNOWN = "resource_unknown"
    RESOURCE_NOT_PUBLISHED = "resource_not_published"
    GRANT_UNKNOWN = "grant_unknown"
    GRANT_FORGED = "grant_forged"
    GRANT_OTHER_CONSUMER = "grant_other_consumer"
    GRANT_OTHER_RESOURCE = "grant_other_resource"
    GRANT_NOT_ACTIVE = "grant_not_active"
    GRANT_SUSPENDED = "grant_suspended"
    GRANT_NOT_YET_VALID = "grant_not_yet_valid"
    GRANT_EXPIRED = "grant_expired"
    ZONE_MISMATCH = "zone_mismatch"
    PURPOSE_MISSING = "purpose_missing"
    PURPOSE_MISMATCH = "purpose_mismatch"
    CASE_MISSING = "case_missing"
    CASE_MISMATCH = "case_mismatch"
    LEVEL_ABOVE_CEILING = "level_above_ceiling"
    QUOTA_EXHAUSTED = "quota_exhausted"
    SAME_PERSON = "same_person"
    TRANSITION_NOT_ALLOWED = "transition_not_allowed"
    TOKEN_INVALID = "token_invalid"  # noqa: S105 - a reason code, not a secret
    # what was sent
    SCHEMA_INVALID = "schema_invalid"
    SCHEMA_INCOMPATIBLE = "schema_incompatible"
    SCHEMA_UNCLASSIFIED = "schema_unclassified"
    SCHEMA_UNSAFE = "schema_unsafe"
    SCHEMA_UNKNOWN = "schema_unknown"
    RECORD_INVALID = "record_invalid"
    BATCH_TOO_LARGE = "batch_too_large"
    BATCH_EMPTY = "batch_empty"
    SIGNATURE_INVALID = "signature_invalid"
    FIELD_UNKNOWN = "field_unknown"
    MASK_UNKNOWN = "mask_unknown"
    FILTER_INVALID = "filter_invalid"
    REQUEST_INVALID = "request_invalid"
    NAME_INVALID = "name_invalid"
    POSITION_INVALID = "position_invalid"
    CONFIG_INVALID = "config_invalid"
    NOT_FOUND = "not_found"
    ALREADY_EXISTS = "already_exists"
    MASK_WEAKER = "mask_weaker"
    FILTER_DISCLOSES = "filter_discloses"
    PERSONAL_NUMBER = "personal_number"
    CASE_FORM_MISMATCH = "case_form_mismatch"
    # state
    SEQUENCE_GAP = "sequence_gap"
    SEQUENCE_CONFLICT = "sequence_conflict"
    PREVIOUS_ROOT_MISMATCH = "previous_root_mismatch"
    LANE_FENCED = "lane_fenced"
    POSITION_GONE = "position_gone"
    TOPIC_GENERATION_CHANGED = "topic_generation_changed"
    VERSION_CONFLICT = "version_conflict"
    # circumstances
    GATEWAY_UNAVAILABLE = "gateway_unavailable"
    BROKER_UNAVAILABLE = "broker_unavailable"
    DATABASE_UNAVAILABLE = "database_unavailable"
    DISK_FULL = "disk_full"
    OUTCOME_UNKNOWN = "outcome_unknown"
    RELEASE_TOO_LATE = "release_too_late"
    OVERLOADED = "overloaded"
    SHUTTING_DOWN = "shutting_down"
    CLOCK_JUMPED = "clock_jumped"
    RELEASE_REPEATED = "release_repeated"
    # proof
    LOG_CORRUPT = "log_corrupt"
    LEAF_MISMATCH = "leaf_mismatch"
    INTERNAL = "internal"
    RECORDS_CORRUPT = "records_corrupt"
    # the registry: what Confluent's REST API tells apart by a number of its own
    SUBJECT_UNKNOWN = "subject_unknown"
    SUBJECT_INVALID = "subject_invalid"
    SUBJECT_DELETED = "subject_deleted"
    SUBJECT_NOT_DELETED = "subject_not_deleted"
    SUBJECT_READ_ONLY = "subject_read_only"
    VERSION_UNKNOWN = "version_unknown"
    VERSION_INVALID = "version_invalid"
    VERSION_DELETED = "version_deleted"
    VERSION_NOT_DELETED = "version_not_deleted"
    SCHEMA_TOO_LARGE = "schema_too_large"
    SCHEMA_REFERENCED = "schema_referenced"
    COMPATIBILITY_INVALID = "compatibility_invalid"
    COMPATIBILITY_NOT_SET = "compatibility_not_set"
    MODE_INVALID = "mode_invalid"
    MODE_NOT_SET = "mode_not_set"
    CLASSIFICATION_LOWERED = "classification_lowered"
    DEPARTMENT_UNKNOWN = "department_unknown"
    # access, later ones
    OTHER_DEPARTMENT = "other_department"
    CONFIRMATION_MISSING = "confirmation_missing"
    PERSON_UNKNOWN = "person_unknown"
    TOKEN_EXPIRED = "token_expired"  # noqa: S105 - a reason code, not a secret
    TOO_MANY_FAILURES = "too_many_failures"
    RATE_LIMITED = "rate_limited"
    DEPARTMENT_QUOTA = "department_quota"
    DEPARTMENT_KIND = "department_kind"
    CONTRACT_ENDED = "contract_ended"
    CONTRACTOR_PLAINTEXT = "contractor_plaintext"
    # connectors: a department's own source, files and target
    SOURCE_UNAVAILABLE = "source_unavailable"
    SOURCE_CHANGED = "source_changed"
    TARGET_UNAVAILABLE = "target_unavailable"
    TARGET_REJECTED = "target_rejected"
    CONTRACT_BROKEN = "contract_broken"
    FILE_REJECTED = "file_rejected"
    QUARANTINE_LIMIT = "quarantine_limit"
    DELETE_GUARD = "delete_guard"
    LEDGER_IN_USE = "ledger_in_use"
    # the registry's import, contracts and contexts
    ID_TAKEN = "id_taken"
    ID_MISMATCH = "id_mismatch"
    SUBJECT_NOT_IN_IMPORT = "subject_not_in_import"
    RULES_INVALID = "rules_invalid"
    CONTEXT_NOT_EMPTY = "context_not_empty"
    # the registry, later ones
    RIGHT_MISSING = "right_missing"
    # proof, later ones
    LOG_BEHIND = "log_behind"
    ROW_FORGED = "row_forged"
    RESTORE_UNSETTLED = "restore_unsettled"
    # the catalogue
    ELEMENT_HAS_LEAD = "element_has_lead"
    ELEMENT_CONTESTED = "element_contested"
    ELEMENT_UNFIT = "element_unfit"
    # the law of sharing: requests and duties
    CLAUSE_MISSING = "clause_missing"
    SUPPLEMENT_REPEATED = "supplement_repeated"
    OUTSIDE_DUTY = "outside_duty"
    GRANT_RENEWED = "grant_renewed"
    GRANT_VIEW_CHANGED = "grant_view_changed"
    RECTIFICATION_ORDERED = "rectification_ordered"
    NOT_SHARED = "not_shared"
    # the law of sharing: corrections
    CORRECTION_MISSING = "correction_missing"
    # the hub: look-ups and verifications
    GRANT_MODE = "grant_mode"
    PREDICATE_UNKNOWN = "predicate_unknown"
    # the hub: identifiers, rules and golden records
    IDENTIFIER_INVALID = "identifier_invalid"
    NO_LEAD = "no_lead"
    AS_OF_NOT_REACHED = "as_of_not_reached"


class PoolError(Exception):
    """Root of every error that crosses a port.

    Args:
        reason: the code that a machine acts on.
        message: one sentence for a person: what was got, what was expected, what to do. No record values.
        details: further facts by name (counts, versions, positions); no record values either.
        retry_after: seconds to wait before the next attempt, where waiting helps.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        details: Mapping[str, str] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.details = dict(details or {})
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle and copy with all attributes, also those that a subclass has added."""
        state = {**self.__dict__, "details": dict(self.details)}  # a copy's details are its own
        return (_rebuild, (type(self), self.args), state)


def _rebuild(kind: type[PoolError], args: tuple[object, ...]) -> PoolError:
    # Without __init__, whose parameters differ by class: the attributes that it had set come as the state.
    return kind.__new__(kind, *args)


class RefusedError(PoolError):
    """The caller may not do this."""


class InvalidError(PoolError):
    """The caller sent something that is wrong in itself; sending it again will not help."""


class ConflictError(PoolError):
    """The caller's view of the state differs from the pool's."""


class GoneError(PoolError):
    """The position asked for is no longer there; `details` names the earliest one."""


class UnavailableError(PoolError):
    """Something the pool needs is unavailable; the same call may succeed later."""


class CorruptError(PoolError):
    """Stored bytes do not prove what they claim. Nothing is released until an operator has looked."""


ERROR_CLASSES: tuple[type[PoolError], ...] = (
    RefusedError,
    InvalidError,
    ConflictError,
    GoneError,
    UnavailableError,
    CorruptError,
)
"""The classes below the root. Every table that maps errors (gRPC codes, HTTP statuses, worker processes) covers them
all, which tests/unit/schemas/test_errors.py checks."""
