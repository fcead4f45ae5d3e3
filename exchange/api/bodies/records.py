"""Bodies of records over HTTPS: fetch and commit."""

from pydantic import Field

from exchange.api.bodies.base import Body

__all__ = ["CommitBody", "FetchBody", "RecordsBody"]


_MAX_BYTES = 1024 * 1024  # of an answer's values, as Avro
_POSITION = "opaque, in base64; empty: after the last acknowledgement; `AA==`: the first record of the grant"


class RecordsBody(Body):
    """What each call of a consumer states."""

    grant: str = Field(description="id of the grant", max_length=100)
    purpose: str = Field(description="of the purpose catalogue, as the grant states it")
    case: str = Field("", description="business case number, where the grant has one")
    on_behalf_of: str = Field("", description="staff pseudonym of the person for whom the program acts")


class FetchBody(RecordsBody):
    """Records to be fetched."""

    position: str = Field("", description=_POSITION)
    max_records: int = Field(1_000, ge=1, le=10_000, description="records of the answer at most")
    max_bytes: int = Field(
        _MAX_BYTES, ge=1, le=_MAX_BYTES, description="bytes of their values as Avro, at most; but one record always"
    )
    places: bool = Field(False, description="with place, operation and valid times, where the grant tells them")
    wait: float = Field(0.0, ge=0, le=60, description="seconds to wait for the first record")


class CommitBody(RecordsBody):
    """A position up to which the consumer has stored everything."""

    position: str = Field(description=_POSITION)
