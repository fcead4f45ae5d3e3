from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Capability(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CAPABILITY_UNSPECIFIED: _ClassVar[Capability]
    CAPABILITY_PUBLISH: _ClassVar[Capability]
    CAPABILITY_FETCH: _ClassVar[Capability]
    CAPABILITY_WITHDRAWALS: _ClassVar[Capability]
    CAPABILITY_REPORT: _ClassVar[Capability]
    CAPABILITY_PLACES: _ClassVar[Capability]
CAPABILITY_UNSPECIFIED: Capability
CAPABILITY_PUBLISH: Capability
CAPABILITY_FETCH: Capability
CAPABILITY_WITHDRAWALS: Capability
CAPABILITY_REPORT: Capability
CAPABILITY_PLACES: Capability

class RequestHeader(_message.Message):
    __slots__ = ("trace_id", "purpose", "case_number", "client_version", "on_behalf_of")
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    CASE_NUMBER_FIELD_NUMBER: _ClassVar[int]
    CLIENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    ON_BEHALF_OF_FIELD_NUMBER: _ClassVar[int]
    trace_id: str
    purpose: str
    case_number: str
    client_version: str
    on_behalf_of: str
    def __init__(self, trace_id: _Optional[str] = ..., purpose: _Optional[str] = ..., case_number: _Optional[str] = ..., client_version: _Optional[str] = ..., on_behalf_of: _Optional[str] = ...) -> None: ...

class HelloRequest(_message.Message):
    __slots__ = ("header", "capabilities")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    header: RequestHeader
    capabilities: _containers.RepeatedScalarFieldContainer[Capability]
    def __init__(self, header: _Optional[_Union[RequestHeader, _Mapping]] = ..., capabilities: _Optional[_Iterable[_Union[Capability, str]]] = ...) -> None: ...

class HelloReply(_message.Message):
    __slots__ = ("pool_id", "server_version", "capabilities", "department", "connector", "receipt_public_key", "server_time", "certificate_expires", "max_batch_records", "max_batch_bytes")
    POOL_ID_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    DEPARTMENT_FIELD_NUMBER: _ClassVar[int]
    CONNECTOR_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    SERVER_TIME_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_EXPIRES_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_RECORDS_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_BYTES_FIELD_NUMBER: _ClassVar[int]
    pool_id: str
    server_version: str
    capabilities: _containers.RepeatedScalarFieldContainer[Capability]
    department: str
    connector: str
    receipt_public_key: bytes
    server_time: int
    certificate_expires: int
    max_batch_records: int
    max_batch_bytes: int
    def __init__(self, pool_id: _Optional[str] = ..., server_version: _Optional[str] = ..., capabilities: _Optional[_Iterable[_Union[Capability, str]]] = ..., department: _Optional[str] = ..., connector: _Optional[str] = ..., receipt_public_key: _Optional[bytes] = ..., server_time: _Optional[int] = ..., certificate_expires: _Optional[int] = ..., max_batch_records: _Optional[int] = ..., max_batch_bytes: _Optional[int] = ...) -> None: ...

class Packed(_message.Message):
    __slots__ = ("offsets", "values")
    OFFSETS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    offsets: bytes
    values: bytes
    def __init__(self, offsets: _Optional[bytes] = ..., values: _Optional[bytes] = ...) -> None: ...

class PlainRecords(_message.Message):
    __slots__ = ("marks", "values", "void_keys", "valid")
    MARKS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    VOID_KEYS_FIELD_NUMBER: _ClassVar[int]
    VALID_FIELD_NUMBER: _ClassVar[int]
    marks: bytes
    values: Packed
    void_keys: Packed
    valid: bytes
    def __init__(self, marks: _Optional[bytes] = ..., values: _Optional[_Union[Packed, _Mapping]] = ..., void_keys: _Optional[_Union[Packed, _Mapping]] = ..., valid: _Optional[bytes] = ...) -> None: ...

class PublishRequest(_message.Message):
    __slots__ = ("header", "topic", "sequence", "plain", "root", "previous_root", "signature", "source_position")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    PLAIN_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_ROOT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_POSITION_FIELD_NUMBER: _ClassVar[int]
    header: RequestHeader
    topic: str
    sequence: int
    plain: PlainRecords
    root: bytes
    previous_root: bytes
    signature: bytes
    source_position: bytes
    def __init__(self, header: _Optional[_Union[RequestHeader, _Mapping]] = ..., topic: _Optional[str] = ..., sequence: _Optional[int] = ..., plain: _Optional[_Union[PlainRecords, _Mapping]] = ..., root: _Optional[bytes] = ..., previous_root: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., source_position: _Optional[bytes] = ...) -> None: ...

class Run(_message.Message):
    __slots__ = ("partition", "first", "last")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    partition: int
    first: int
    last: int
    def __init__(self, partition: _Optional[int] = ..., first: _Optional[int] = ..., last: _Optional[int] = ...) -> None: ...

class Receipt(_message.Message):
    __slots__ = ("lane", "sequence", "root", "runs", "entry_id", "leaf_hash", "source_position", "signature")
    LANE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    RUNS_FIELD_NUMBER: _ClassVar[int]
    ENTRY_ID_FIELD_NUMBER: _ClassVar[int]
    LEAF_HASH_FIELD_NUMBER: _ClassVar[int]
    SOURCE_POSITION_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    lane: str
    sequence: int
    root: bytes
    runs: _containers.RepeatedCompositeFieldContainer[Run]
    entry_id: str
    leaf_hash: bytes
    source_position: bytes
    signature: bytes
    def __init__(self, lane: _Optional[str] = ..., sequence: _Optional[int] = ..., root: _Optional[bytes] = ..., runs: _Optional[_Iterable[_Union[Run, _Mapping]]] = ..., entry_id: _Optional[str] = ..., leaf_hash: _Optional[bytes] = ..., source_position: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("reason", "message", "details", "rows", "code", "retry_after")
    class DetailsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    reason: str
    message: str
    details: _containers.ScalarMap[str, str]
    rows: _containers.RepeatedCompositeFieldContainer[RowError]
    code: int
    retry_after: float
    def __init__(self, reason: _Optional[str] = ..., message: _Optional[str] = ..., details: _Optional[_Mapping[str, str]] = ..., rows: _Optional[_Iterable[_Union[RowError, _Mapping]]] = ..., code: _Optional[int] = ..., retry_after: _Optional[float] = ...) -> None: ...

class RowError(_message.Message):
    __slots__ = ("index", "reason", "field", "message")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    index: int
    reason: str
    field: str
    message: str
    def __init__(self, index: _Optional[int] = ..., reason: _Optional[str] = ..., field: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class PublishReply(_message.Message):
    __slots__ = ("sequence", "receipt", "refusal")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    receipt: Receipt
    refusal: Refusal
    def __init__(self, sequence: _Optional[int] = ..., receipt: _Optional[_Union[Receipt, _Mapping]] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ...) -> None: ...

class SchemaRequest(_message.Message):
    __slots__ = ("header", "topic", "schema_id")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_ID_FIELD_NUMBER: _ClassVar[int]
    header: RequestHeader
    topic: str
    schema_id: int
    def __init__(self, header: _Optional[_Union[RequestHeader, _Mapping]] = ..., topic: _Optional[str] = ..., schema_id: _Optional[int] = ...) -> None: ...

class SchemaReply(_message.Message):
    __slots__ = ("schema_id", "schema")
    SCHEMA_ID_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    schema_id: int
    schema: str
    def __init__(self, schema_id: _Optional[int] = ..., schema: _Optional[str] = ...) -> None: ...

class ResumeRequest(_message.Message):
    __slots__ = ("header", "topic")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    header: RequestHeader
    topic: str
    def __init__(self, header: _Optional[_Union[RequestHeader, _Mapping]] = ..., topic: _Optional[str] = ...) -> None: ...

class ResumeReply(_message.Message):
    __slots__ = ("sequence", "root", "source_position", "receipt", "keeps_history")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_POSITION_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    KEEPS_HISTORY_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    root: bytes
    source_position: bytes
    receipt: Receipt
    keeps_history: bool
    def __init__(self, sequence: _Optional[int] = ..., root: _Optional[bytes] = ..., source_position: _Optional[bytes] = ..., receipt: _Optional[_Union[Receipt, _Mapping]] = ..., keeps_history: _Optional[bool] = ...) -> None: ...

class DescribeRequest(_message.Message):
    __slots__ = ("header", "grant_id")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    GRANT_ID_FIELD_NUMBER: _ClassVar[int]
    header: RequestHeader
    grant_id: str
    def __init__(self, header: _Optional[_Union[RequestHeader, _Mapping]] = ..., grant_id: _Optional[str] = ...) -> None: ...

class DescribeReply(_message.Message):
    __slots__ = ("grant_id", "grant_version", "topic", "view_schema_id", "view_schema", "position", "not_before", "expires", "state", "withdrawals", "row_filter", "provider")
    GRANT_ID_FIELD_NUMBER: _ClassVar[int]
    GRANT_VERSION_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    VIEW_SCHEMA_ID_FIELD_NUMBER: _ClassVar[int]
    VIEW_SCHEMA_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    NOT_BEFORE_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    WITHDRAWALS_FIELD_NUMBER: _ClassVar[int]
    ROW_FILTER_FIELD_NUMBER: _ClassVar[int]
    PROVIDER_FIELD_NUMBER: _ClassVar[int]
    grant_id: str
    grant_version: int
    topic: str
    view_schema_id: int
    view_schema: str
    position: bytes
    not_before: int
    expires: int
    state: str
    withdrawals: bool
    row_filter: str
    provider: str
    def __init__(self, grant_id: _Optional[str] = ..., grant_version: _Optional[int] = ..., topic: _Optional[str] = ..., view_schema_id: _Optional[int] = ..., view_schema: _Optional[str] = ..., position: _Optional[bytes] = ..., not_before: _Optional[int] = ..., expires: _Optional[int] = ..., state: _Optional[str] = ..., withdrawals: _Optional[bool] = ..., row_filter: _Optional[str] = ..., provider: _Optional[str] = ...) -> None: ...

class FetchRequest(_message.Message):
    __slots__ = ("header", "grant_id", "position", "max_records", "max_bytes", "wait_ms", "places")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    GRANT_ID_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    MAX_RECORDS_FIELD_NUMBER: _ClassVar[int]
    MAX_BYTES_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    PLACES_FIELD_NUMBER: _ClassVar[int]
    header: RequestHeader
    grant_id: str
    position: bytes
    max_records: int
    max_bytes: int
    wait_ms: int
    places: bool
    def __init__(self, header: _Optional[_Union[RequestHeader, _Mapping]] = ..., grant_id: _Optional[str] = ..., position: _Optional[bytes] = ..., max_records: _Optional[int] = ..., max_bytes: _Optional[int] = ..., wait_ms: _Optional[int] = ..., places: _Optional[bool] = ...) -> None: ...

class ViewRecords(_message.Message):
    __slots__ = ("schema_id", "values", "record_keys", "recorded_at", "valid", "disputed", "places", "marks")
    SCHEMA_ID_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    RECORD_KEYS_FIELD_NUMBER: _ClassVar[int]
    RECORDED_AT_FIELD_NUMBER: _ClassVar[int]
    VALID_FIELD_NUMBER: _ClassVar[int]
    DISPUTED_FIELD_NUMBER: _ClassVar[int]
    PLACES_FIELD_NUMBER: _ClassVar[int]
    MARKS_FIELD_NUMBER: _ClassVar[int]
    schema_id: int
    values: Packed
    record_keys: bytes
    recorded_at: bytes
    valid: bytes
    disputed: _containers.RepeatedScalarFieldContainer[int]
    places: bytes
    marks: bytes
    def __init__(self, schema_id: _Optional[int] = ..., values: _Optional[_Union[Packed, _Mapping]] = ..., record_keys: _Optional[bytes] = ..., recorded_at: _Optional[bytes] = ..., valid: _Optional[bytes] = ..., disputed: _Optional[_Iterable[int]] = ..., places: _Optional[bytes] = ..., marks: _Optional[bytes] = ...) -> None: ...

class FetchReply(_message.Message):
    __slots__ = ("view", "next_position", "entry_id", "leaf_hash", "caught_up")
    VIEW_FIELD_NUMBER: _ClassVar[int]
    NEXT_POSITION_FIELD_NUMBER: _ClassVar[int]
    ENTRY_ID_FIELD_NUMBER: _ClassVar[int]
    LEAF_HASH_FIELD_NUMBER: _ClassVar[int]
    CAUGHT_UP_FIELD_NUMBER: _ClassVar[int]
    view: ViewRecords
    next_position: bytes
    entry_id: str
    leaf_hash: bytes
    caught_up: bool
    def __init__(self, view: _Optional[_Union[ViewRecords, _Mapping]] = ..., next_position: _Optional[bytes] = ..., entry_id: _Optional[str] = ..., leaf_hash: _Optional[bytes] = ..., caught_up: _Optional[bool] = ...) -> None: ...

class CommitRequest(_message.Message):
    __slots__ = ("header", "grant_id", "position")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    GRANT_ID_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    header: RequestHeader
    grant_id: str
    position: bytes
    def __init__(self, header: _Optional[_Union[RequestHeader, _Mapping]] = ..., grant_id: _Optional[str] = ..., position: _Optional[bytes] = ...) -> None: ...

class CommitReply(_message.Message):
    __slots__ = ("entry_id",)
    ENTRY_ID_FIELD_NUMBER: _ClassVar[int]
    entry_id: str
    def __init__(self, entry_id: _Optional[str] = ...) -> None: ...

class ReportRequest(_message.Message):
    __slots__ = ("header", "program", "started", "configuration", "streams", "ended")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    PROGRAM_FIELD_NUMBER: _ClassVar[int]
    STARTED_FIELD_NUMBER: _ClassVar[int]
    CONFIGURATION_FIELD_NUMBER: _ClassVar[int]
    STREAMS_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    header: RequestHeader
    program: str
    started: int
    configuration: str
    streams: _containers.RepeatedCompositeFieldContainer[Stream]
    ended: bool
    def __init__(self, header: _Optional[_Union[RequestHeader, _Mapping]] = ..., program: _Optional[str] = ..., started: _Optional[int] = ..., configuration: _Optional[str] = ..., streams: _Optional[_Iterable[_Union[Stream, _Mapping]]] = ..., ended: _Optional[bool] = ...) -> None: ...

class Stream(_message.Message):
    __slots__ = ("name", "direction", "state", "reason", "last_success", "sequence", "unacknowledged", "keys", "read", "published", "quarantined", "unchanged", "voided", "quarantine", "ledger_lost", "mode")
    class QuarantineEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    LAST_SUCCESS_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    UNACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    READ_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_FIELD_NUMBER: _ClassVar[int]
    QUARANTINED_FIELD_NUMBER: _ClassVar[int]
    UNCHANGED_FIELD_NUMBER: _ClassVar[int]
    VOIDED_FIELD_NUMBER: _ClassVar[int]
    QUARANTINE_FIELD_NUMBER: _ClassVar[int]
    LEDGER_LOST_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    name: str
    direction: str
    state: str
    reason: str
    last_success: int
    sequence: int
    unacknowledged: int
    keys: int
    read: int
    published: int
    quarantined: int
    unchanged: int
    voided: int
    quarantine: _containers.ScalarMap[str, int]
    ledger_lost: int
    mode: str
    def __init__(self, name: _Optional[str] = ..., direction: _Optional[str] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., last_success: _Optional[int] = ..., sequence: _Optional[int] = ..., unacknowledged: _Optional[int] = ..., keys: _Optional[int] = ..., read: _Optional[int] = ..., published: _Optional[int] = ..., quarantined: _Optional[int] = ..., unchanged: _Optional[int] = ..., voided: _Optional[int] = ..., quarantine: _Optional[_Mapping[str, int]] = ..., ledger_lost: _Optional[int] = ..., mode: _Optional[str] = ...) -> None: ...

class ReconciledRequest(_message.Message):
    __slots__ = ("header", "direction", "stream", "sequence", "ranges", "set_aside", "equal")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    SET_ASIDE_FIELD_NUMBER: _ClassVar[int]
    EQUAL_FIELD_NUMBER: _ClassVar[int]
    header: RequestHeader
    direction: str
    stream: str
    sequence: int
    ranges: _containers.RepeatedCompositeFieldContainer[RangeTotals]
    set_aside: int
    equal: bool
    def __init__(self, header: _Optional[_Union[RequestHeader, _Mapping]] = ..., direction: _Optional[str] = ..., stream: _Optional[str] = ..., sequence: _Optional[int] = ..., ranges: _Optional[_Iterable[_Union[RangeTotals, _Mapping]]] = ..., set_aside: _Optional[int] = ..., equal: _Optional[bool] = ...) -> None: ...

class RangeTotals(_message.Message):
    __slots__ = ("range", "department", "pool", "equal")
    RANGE_FIELD_NUMBER: _ClassVar[int]
    DEPARTMENT_FIELD_NUMBER: _ClassVar[int]
    POOL_FIELD_NUMBER: _ClassVar[int]
    EQUAL_FIELD_NUMBER: _ClassVar[int]
    range: str
    department: int
    pool: int
    equal: bool
    def __init__(self, range: _Optional[str] = ..., department: _Optional[int] = ..., pool: _Optional[int] = ..., equal: _Optional[bool] = ...) -> None: ...

class ReconciledReply(_message.Message):
    __slots__ = ("entry_id",)
    ENTRY_ID_FIELD_NUMBER: _ClassVar[int]
    entry_id: str
    def __init__(self, entry_id: _Optional[str] = ...) -> None: ...

class ReportReply(_message.Message):
    __slots__ = ("next", "latest_program", "notices")
    NEXT_FIELD_NUMBER: _ClassVar[int]
    LATEST_PROGRAM_FIELD_NUMBER: _ClassVar[int]
    NOTICES_FIELD_NUMBER: _ClassVar[int]
    next: int
    latest_program: str
    notices: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, next: _Optional[int] = ..., latest_program: _Optional[str] = ..., notices: _Optional[_Iterable[str]] = ...) -> None: ...
