from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class EnrolRequest(_message.Message):
    __slots__ = ("token", "connector", "certificate_request", "signing_public_key", "signing_proof")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    CONNECTOR_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    SIGNING_PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    SIGNING_PROOF_FIELD_NUMBER: _ClassVar[int]
    token: str
    connector: str
    certificate_request: bytes
    signing_public_key: bytes
    signing_proof: bytes
    def __init__(self, token: _Optional[str] = ..., connector: _Optional[str] = ..., certificate_request: _Optional[bytes] = ..., signing_public_key: _Optional[bytes] = ..., signing_proof: _Optional[bytes] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("certificate_request",)
    CERTIFICATE_REQUEST_FIELD_NUMBER: _ClassVar[int]
    certificate_request: bytes
    def __init__(self, certificate_request: _Optional[bytes] = ...) -> None: ...

class EnrolReply(_message.Message):
    __slots__ = ("certificate_chain", "authority", "pool_id", "department", "not_after", "gateway")
    CERTIFICATE_CHAIN_FIELD_NUMBER: _ClassVar[int]
    AUTHORITY_FIELD_NUMBER: _ClassVar[int]
    POOL_ID_FIELD_NUMBER: _ClassVar[int]
    DEPARTMENT_FIELD_NUMBER: _ClassVar[int]
    NOT_AFTER_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    certificate_chain: bytes
    authority: bytes
    pool_id: str
    department: str
    not_after: int
    gateway: str
    def __init__(self, certificate_chain: _Optional[bytes] = ..., authority: _Optional[bytes] = ..., pool_id: _Optional[str] = ..., department: _Optional[str] = ..., not_after: _Optional[int] = ..., gateway: _Optional[str] = ...) -> None: ...
