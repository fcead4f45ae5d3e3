"""Audit entry: the record of one act in the log, its byte form (leaf), and the types of proofs about it.

    AuditEntry         one act: who, what, under which grant, for which purpose, with which outcome
    to_leaf            its one byte form: canonical JSON (RFC 8785), at most 65,535 bytes (C2SP tlog-tiles)
    from_leaf          and back: unknown fields are skipped, an unknown version is refused
    Checkpoint         size and root of the log at one moment (C2SP tlog-checkpoint)
    InclusionProof, ConsistencyProof    RFC 6962, 2.1.1 and 2.1.2

An entry never holds a record's value or a national identifier: it holds ranges of positions, counts, hashes and
pseudonyms. With its salt, nobody can guess an entry from its hash. The log's hash of an entry is
`schemas.merkle.leaf_hash(to_leaf(entry))`.

The content of `data` depends on the action; `publish_data`, `fetch_data` and `folded_data` build it, so that the
writer and the verifier use the same names. Data of other actions are free, but hold no list of records.

Evolution: a field may be added at any time and is left out where it is empty; the version rises only when the
meaning of an old field changes. One golden leaf per version is kept (tests/golden).
"""

import json
import json.encoder
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Any, TypeVar

from schemas.access import Action, Actor, ActorKind, Role
from schemas.canonical import Json, canonical
from schemas.errors import InvalidError, Reason
from schemas.offsets import pack_offsets
from schemas.record import OffsetRange, Positions

__all__ = [
    "ALGORITHMS",
    "AUTHENTICATION_FAILED",
    "DIGEST_OF_ROWS",
    "ENTRY_VERSION",
    "MAX_LEAF_BYTES",
    "RESTORED",
    "ROWS_CHANGED",
    "AuditEntry",
    "Checkpoint",
    "ConsistencyProof",
    "Decision",
    "Flow",
    "GrantRef",
    "InclusionProof",
    "fetch_data",
    "folded_data",
    "from_leaf",
    "is_done",
    "publish_data",
    "read_leaf",
    "to_leaf",
]

ENTRY_VERSION = 1
ROWS_CHANGED = "storage:rows:change"
AUTHENTICATION_FAILED = "identity:caller:authenticate"
"""Action of an entry that holds changes of tagged rows which do not fit into the entry of their act, or which a command
made (`pool init`, `pool migrate`). Nobody asks for it, so it is no `Action` and no rule decides on it."""
DIGEST_OF_ROWS = "storage:rows:digest"
"""Action of the periodic entry that holds the digest of each tagged table."""
RESTORED = "storage:backup:restore"
"""Action of the statement of a restore: what the restored database does not have, and what was set back to where."""
MAX_LEAF_BYTES = 65_535  # C2SP tlog-tiles: an entry's length is a uint16

ALGORITHMS: Mapping[str, str] = MappingProxyType({"digest": "sha-256", "pseudonym": "hmac-sha256"})
"""Algorithms behind the digests and pseudonyms of an entry; national ones (hmac-sm3) get ids of their own."""

_MAX_SAFE = 2**53 - 1  # RFC 8785, 3.2.2.3
_quoted = json.encoder.encode_basestring
_Enum = TypeVar("_Enum", bound=StrEnum)


class Decision(StrEnum):
    """Decision of the enforcer."""

    ALLOW = "allow"
    DENY = "deny"


class Flow(StrEnum):
    """Direction of a sharing: between departments, between levels of government, to the public."""

    HORIZONTAL = "horizontal"
    VERTICAL = "vertical"  # never written; stays, since a published word keeps its meaning
    PUBLIC = "public"
    VERTICAL_UP = "vertical_up"  # from a lower level to a higher one
    VERTICAL_DOWN = "vertical_down"


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantRef:
    """One version of a grant, and the SHA-256 of its canonical JSON in hexadecimal."""

    id: str
    version: int
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One act that the enforcer allowed or denied.

    Attributes:
        pool: the pool's id.
        id: UUIDv7 as text.
        at: microseconds since 1970 UTC, by the clock of the process that writes the entry.
        trace: the caller's trace id, 32 hexadecimal digits, or empty.
        gateway: one gapless sequence of one process start, such as `gw1@019a…#3`. Filled in by the ledger.
        counter: 1, 2, 3 … without a gap within `gateway`; 0 while the ledger has not numbered the entry.
        salt: 16 random bytes in hexadecimal.
        actor: who acted; None for a caller without an identity.
        action: an `Action`; plain text where a newer pool wrote one that this version does not know.
        resource: what it was done to: a topic, a subject, a department's id, an account.
        decision: allowed or denied.
        reason: code of the denial, None when allowed.
        grant: the grant version under which, or to which, it was done.
        purpose: id in the purpose catalogue (使用目的). case: business case number.
        flow: direction of the sharing, where data moved.
        data: what only this action has; see `publish_data`, `fetch_data`, `folded_data`.
        algorithms: see `ALGORITHMS`.
        version: of this form.

    Raises:
        InvalidError: REQUEST_INVALID, for a denial without a reason, a reason without a denial, a time before 1970.
    """

    pool: str
    id: str
    at: int
    trace: str = ""
    gateway: str
    counter: int = 0
    salt: str
    actor: Actor | None
    action: Action | str
    resource: str = ""
    decision: Decision = Decision.ALLOW
    reason: Reason | str | None = None
    grant: GrantRef | None = None
    purpose: str = ""
    case: str = ""
    flow: Flow | None = None
    data: Mapping[str, Json] = field(default_factory=dict)
    algorithms: Mapping[str, str] = field(default_factory=lambda: ALGORITHMS)
    version: int = ENTRY_VERSION

    def __post_init__(self) -> None:
        if (self.decision is Decision.DENY) != (self.reason is not None):
            raise InvalidError(
                Reason.REQUEST_INVALID,
                f"got the decision {self.decision!s} with the reason {self.reason!s}; expected a reason with a "
                "denial, and only with it",
            )
        if not (0 < self.at <= _MAX_SAFE and 0 <= self.counter <= _MAX_SAFE):
            raise InvalidError(
                Reason.REQUEST_INVALID,
                f"got the time {self.at} and the counter {self.counter}; expected µs since 1970, and 0 or more",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The log at one moment. `origin` names the log, `size` counts its leaves, `root` is 32 bytes (RFC 6962, 2.1)."""

    origin: str
    size: int
    root: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class InclusionProof:
    """Leaf `index` is in the tree of `size` leaves; `path` holds its siblings, 32 bytes each, lowest first."""

    index: int
    size: int
    path: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsistencyProof:
    """The tree of `old_size` leaves is a prefix of the one of `new_size`; `path` as in RFC 6962, 2.1.2."""

    old_size: int
    new_size: int
    path: tuple[bytes, ...]


def to_leaf(entry: AuditEntry) -> bytes:
    """Return the entry's leaf: RFC 8785 bytes; empty fields (None, "" and an empty `data`) are left out.

    Raises:
        InvalidError: REQUEST_INVALID, when it is longer than 65,535 bytes or has no canonical form.
    """
    try:
        leaf = _canonical_text(entry).encode()
    except UnicodeEncodeError as error:
        raise InvalidError(
            Reason.REQUEST_INVALID, "got an audit entry with a lone surrogate; expected Unicode text"
        ) from error
    if len(leaf) > MAX_LEAF_BYTES:
        raise InvalidError(
            Reason.REQUEST_INVALID,
            f"got an audit entry of {len(leaf)} bytes; expected {MAX_LEAF_BYTES} at most: say less in `data`",
        )
    return leaf


def is_done(entry: Mapping[str, Any], action: str) -> bool:
    """Return whether an entry says that an act was allowed and did not fail.

    It is asked of the leaf, which a tag or the log's root protects. The columns beside it serve the search: the owner
    of the database can change them.
    """
    decided = (entry.get("action"), entry.get("decision"))
    return decided == (action, Decision.ALLOW) and "failed" not in entry.get("data", {})


def read_leaf(leaf: bytes) -> dict[str, Any]:
    """Return the leaf's JSON object, known fields and unknown ones.

    Raises:
        InvalidError: REQUEST_INVALID, for bytes that are not the canonical form of an object, and for a version
            that this code does not know: use a newer verifier.
    """
    try:
        value = json.loads(leaf)
        canonical_form = isinstance(value, dict) and canonical(value) == leaf
    except (ValueError, RecursionError, InvalidError):
        canonical_form = False
    if not canonical_form:
        raise InvalidError(
            Reason.REQUEST_INVALID, f"got a leaf of {len(leaf)} bytes that is no RFC 8785 object in canonical form"
        )
    if type(value.get("version")) is not int or value["version"] != ENTRY_VERSION:
        raise InvalidError(
            Reason.REQUEST_INVALID,
            f"got a leaf of another version than {ENTRY_VERSION}; use a newer verifier to read it",
        )
    assert isinstance(value, dict)  # noqa: S101 - tells mypy what canonical_form means
    return value


def from_leaf(leaf: bytes) -> AuditEntry:
    """Read a leaf back. Fields that this version does not know are skipped.

    Raises:
        InvalidError: REQUEST_INVALID, as `read_leaf`, and when a field is missing or has another type.
    """
    value = read_leaf(leaf)
    try:
        actor, grant, flow = value.get("actor"), value.get("grant"), value.get("flow")
        decision = Decision(value["decision"])
        reason = value.get("reason")
        return AuditEntry(
            pool=_text(value["pool"]),
            id=_text(value["id"]),
            at=_whole(value["at"]),
            trace=_text(value.get("trace", "")),
            gateway=_text(value["gateway"]),
            counter=_whole(value["counter"]),
            salt=_text(value["salt"]),
            actor=None if actor is None else _actor_of(actor),
            action=_parse_enum(Action, value["action"]),
            resource=_text(value.get("resource", "")),
            decision=decision,
            reason=None if reason is None else _parse_enum(Reason, reason),
            grant=None
            if grant is None
            else GrantRef(id=_text(grant["id"]), version=_whole(grant["version"]), hash=_text(grant["hash"])),
            purpose=_text(value.get("purpose", "")),
            case=_text(value.get("case", "")),
            flow=None if flow is None else Flow(flow),
            data=dict(value.get("data", {})),
            algorithms={_text(name): _text(which) for name, which in value["algorithms"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidError(
            Reason.REQUEST_INVALID,
            f"got a leaf whose fields are not those of entry version {ENTRY_VERSION} ({type(error).__name__})",
        ) from error


def publish_data(
    *,
    lane: str,
    sequence: int,
    count: int,
    schema_ids: Sequence[int],
    root: bytes,
    runs: Sequence[OffsetRange],
    recovered: bool = False,
) -> dict[str, Json]:
    """Return the data of a publication.

    Args:
        lane: `str` of the lane.
        sequence: number of the batch.
        count: its records.
        schema_ids: registry ids of the writer schemas in it.
        root: the root that the connector signed, 32 bytes.
        runs: the offsets of the records in the topic.
        recovered: the sweeper wrote this entry, after the gateway that published had died.
    """
    data: dict[str, Json] = {
        "lane": lane,
        "sequence": sequence,
        "count": count,
        "schema_ids": list(schema_ids),
        "root": root.hex(),
        "runs": [[run.partition, run.first, run.last] for run in runs],
    }
    if recovered:
        data["recovered"] = True
    return data


def fetch_data(
    *,
    generation: int,
    start: Positions,
    end: Positions,
    delivered: Sequence[Sequence[int]],
    withdrawn: Sequence[Sequence[int]],
    root: bytes,
    again: bool = False,
    gap: str = "",
) -> dict[str, Json]:
    """Return the data of a release.

    Within one grant and generation `start` never lies after the previous entry's `end`: what was scanned without
    an entry is part of the next one. Where retention has overtaken the consumer, `gap` says so.

    Args:
        generation: of the topic.
        start: positions before all that was scanned, per partition.
        end: positions after it: [start, end).
        delivered: per partition, the offsets of the records that were released, rising.
        withdrawn: per partition, the offsets that went out as a withdrawn key alone, rising.
        root: RFC 6962 root over what the consumer got, 32 bytes.
        again: the range was released to this grant before.
        gap: why `start` lies after the previous end ("retention"); empty when it does not.
    """
    data: dict[str, Json] = {
        "generation": generation,
        "from": list(start),
        "to": list(end),
        "count": sum(map(len, delivered)),
        "delivered": pack_offsets(start, end, delivered),
        "root": root.hex(),
    }
    gone = sum(map(len, withdrawn))
    if gone:
        data["withdrawn_count"] = gone
        data["withdrawn"] = pack_offsets(start, end, withdrawn)
    if again:
        data["again"] = True
    if gap:
        data["gap"] = gap
    return data


def folded_data(
    *,
    count: int,
    since: int,
    resources: Sequence[str] = (),
    queries: Sequence[str] = (),
    cases: Sequence[str] = (),
    grants: Sequence[str] = (),
    unnamed: int = 0,
) -> dict[str, Json]:
    """Return the data of repeated denials, failures or reads of one actor, aggregated into one entry.

    Args:
        count: how many calls, at least 1.
        since: time of the first, microseconds UTC.
        resources: some of what they named, where the entry's resource is `*`.
        queries: digests of some of what they asked.
        cases: some of the cases that they declared, other than that of the first.
        grants: ids of some of the grants that they named, other than that of the first.
        unnamed: calls whose resource, query, case or grant is in none of them.
    """
    data: dict[str, Json] = {"folded": count, "since": since}
    if resources:
        data["resources"] = list(resources)
    if queries:
        data["queries"] = list(queries)
    if cases:
        data["cases"] = list(cases)
    if grants:
        data["grants"] = list(grants)
    if unnamed:
        data["unnamed"] = unnamed
    return data


def _canonical_text(entry: AuditEntry) -> str:
    """Return the canonical text, put together field by field: three times as fast as sorting and checking it.

    `schemas.canonical` stays the definition; a property test compares the two.
    """
    reason, grant, flow = entry.reason, entry.grant, entry.flow
    return "".join(
        (
            f'{{"action":{_quoted(entry.action)}',
            "" if entry.actor is None else f',"actor":{_actor_text(entry.actor)}',
            f',"algorithms":{_algorithms_text(tuple(entry.algorithms.items()))},"at":{entry.at:d}',
            f',"case":{_quoted(entry.case)}' if entry.case else "",
            f',"counter":{entry.counter:d}',
            f',"data":{canonical(dict(entry.data)).decode()}' if entry.data else "",
            f',"decision":{_quoted(entry.decision)}',
            "" if flow is None else f',"flow":{_quoted(flow)}',
            f',"gateway":{_quoted(entry.gateway)}',
            ""
            if grant is None
            else f',"grant":{{"hash":{_quoted(grant.hash)},"id":{_quoted(grant.id)},"version":{grant.version:d}}}',
            f',"id":{_quoted(entry.id)},"pool":{_quoted(entry.pool)}',
            f',"purpose":{_quoted(entry.purpose)}' if entry.purpose else "",
            "" if reason is None else f',"reason":{_quoted(reason)}',
            f',"resource":{_quoted(entry.resource)}' if entry.resource else "",
            f',"salt":{_quoted(entry.salt)}',
            f',"trace":{_quoted(entry.trace)}' if entry.trace else "",
            f',"version":{entry.version:d}}}',
        )
    )


@lru_cache(maxsize=4096)
def _actor_text(actor: Actor) -> str:
    value: dict[str, Json] = {"id": actor.id, "kind": str(actor.kind), "role": str(actor.role), "zone": actor.zone}
    if actor.department:
        value["department"] = actor.department
    if actor.certificate:
        value["certificate"] = actor.certificate
    if actor.on_behalf_of:
        value["on_behalf_of"] = actor.on_behalf_of
    return canonical(value).decode()


@lru_cache(maxsize=16)
def _algorithms_text(algorithms: tuple[tuple[str, str], ...]) -> str:
    return canonical(dict(algorithms)).decode()


def _actor_of(value: Mapping[str, Any]) -> Actor:
    behalf = value.get("on_behalf_of")
    return Actor(
        kind=ActorKind(value["kind"]),
        id=_text(value["id"]),
        department=_text(value.get("department", "")),
        role=Role(value["role"]),
        zone=_text(value["zone"]),
        on_behalf_of=None if behalf is None else _text(behalf),
        certificate=_text(value.get("certificate", "")),
    )


def _parse_enum(values: type[_Enum], value: object) -> _Enum | str:
    try:
        return values(_text(value))
    except ValueError:
        return _text(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _whole(value: object) -> int:
    if type(value) is not int:
        raise TypeError
    return value
