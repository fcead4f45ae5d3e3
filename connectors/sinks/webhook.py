"""Webhook as a sink: records are posted as JSON, signed, to an address of the department's own.

    {"grant": "0198…", "records": [
       {"id": "6f…", "record_key": "5f0c…", "recorded_at": "2026-03-01T00:00:00+00:00", "operation": "upsert",
        "value": {…}} …]}

Headers by Standard Webhooks 1.0: `webhook-id`, `webhook-timestamp` (seconds since 1970), `webhook-signature`, which is
`v1,` and the base64 of HMAC-SHA256 over `<id>.<timestamp>.<body>`. `Idempotency-Key` has the same id. It is a digest of
the records, so a request that is repeated has the same one, also after a crash; and each record has an `id` of its
own, since what is fetched again may come in other portions. Values are in the form of `registry.codec.json_rows`.

    2xx                      delivered
    400, 409, 413, 422       the target refuses these records: halved, until those that it refuses are known; they are
                             quarantined with the status as the cause
    408, 425, 429, 5xx, no   tried again with back-off, after `Retry-After` where it is given; after five failures in
    answer                   a row the target is left alone for 30 s (`connectors.sinks.circuit_breaker`)
    any other, 3xx too       address or credentials are wrong: the subscription stops

Delivery is at least once. The position is in a file beside the ledger, written after the last answer of a release: a
target has no transaction with us. Where a target refuses more than 20 records and takes none, something else is wrong
than the records: nothing is quarantined, and the subscription stops.
"""

import base64
import fcntl
import hashlib
import hmac
import json
import math
import os
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
from typing_extensions import override

from connectors.port import DecodedRelease, QuarantineCallback, RejectCode, RejectedRecord, Sink, WriteResult
from connectors.retry import Backoff, retry_after_of
from connectors.sinks.atomic_file import make_folder, replace_file
from connectors.sinks.circuit_breaker import CircuitBreaker
from registry.codec.json_rows import json_rows
from schemas.errors import ConflictError, CorruptError, InvalidError, Reason, RefusedError, UnavailableError

__all__ = ["WebhookSink", "WebhookTarget"]

_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OF_THE_RECORDS = frozenset({400, 409, 413, 422})
_TO_BE_REPEATED = frozenset({408, 425, 429})
_FAILURES, _PAUSE = 5, 30.0  # in a row, and the seconds of rest after them
_SUSPICIOUS = 20  # records refused while none was taken
_MAX_ANSWER = 64 * 1024  # bytes of an answer that are read, so that its connection may be used again
_LEAST_SECRET = 24  # bytes (Standard Webhooks 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookTarget:
    """Where to, and signed by what.

    Attributes:
        url: of the target.
        secret: key of the signature; after `whsec_` it is base64.
        authority: certificates (PEM) by which the target's is verified; None = those of the system.
        batch: records of a request.
        timeout: seconds of a request.
    """

    url: str
    secret: str = field(repr=False)
    authority: Path | None = None
    batch: int = 100
    timeout: float = 30.0

    def key(self) -> bytes:
        """Return the signature's key.

        Raises:
            InvalidError: CONFIG_INVALID, it is too short.
        """
        try:
            text = self.secret
            key = base64.b64decode(text.removeprefix("whsec_"), validate=True) if text.startswith("whsec_") else b""
        except ValueError:
            key = b""
        key = key if self.secret.startswith("whsec_") else self.secret.encode()
        if len(key) < _LEAST_SECRET:
            raise InvalidError(
                Reason.CONFIG_INVALID,
                f"the webhook's secret has {len(key)} bytes; expected {_LEAST_SECRET} at least, or whsec_ and base64: "
                "`openssl rand -base64 32` makes one",
            )
        return key


@dataclass(frozen=True, slots=True, kw_only=True)
class _Delivery:
    """A record to be posted: its place in the release, its id, and its JSON."""

    index: int
    id: str
    text: str


class WebhookSink(Sink):
    """One target of one grant. Used by one thread."""

    def __init__(
        self,
        target: WebhookTarget,
        grant_id: str,
        folder: Path,
        *,
        stop: threading.Event | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
        backoff: float = 0.5,
    ) -> None:
        """Configure; call nothing yet.

        Args:
            target: where to.
            grant_id: whose records are posted.
            folder: of the file that has the position.
            stop: ends a wait.
            clock: of the signature's time.
            monotonic: seconds, of waiting.
            backoff: seconds, the maximum of the first delay.

        Raises:
            InvalidError: CONFIG_INVALID, the secret or the authority cannot be used.
        """
        self._target = target
        self._key = target.key()
        self._grant = grant_id
        self._file = folder / f"{grant_id}.webhook.json"
        self._stop = stop or threading.Event()
        self._clock = clock
        self._monotonic = monotonic
        self._breaker = CircuitBreaker(threshold=_FAILURES, pause=_PAUSE, monotonic=monotonic)
        self._backoff = Backoff(give_up_after=math.inf, stop=self._stop, monotonic=monotonic, base=backoff)
        try:
            context = ssl.create_default_context(cafile=target.authority)
        except (OSError, ssl.SSLError) as error:
            raise InvalidError(
                Reason.CONFIG_INVALID, f"{target.authority} holds no certificates that can be read"
            ) from error
        self._http = httpx.Client(verify=context, timeout=target.timeout, follow_redirects=False)

    @override
    def check(self, schema: pa.Schema) -> None:
        """Do nothing: JSON has a form for every type."""

    @override
    def prepare(self, schema: pa.Schema) -> None:
        try:
            make_folder(self._file.parent)
        except OSError as error:
            raise self._unwritable(error) from error

    @override
    def position(self) -> bytes:
        try:
            stored = json.loads(self._file.read_bytes())
            return base64.b64decode(stored["position"])
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise self._unwritable(error) from error
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptError(
                Reason.INTERNAL, f"{self._file} cannot be read; restore it, or delete it to begin where the pool knows"
            ) from error

    @override
    def write(
        self, release: DecodedRelease, before: bytes, after: bytes, quarantine: QuarantineCallback
    ) -> WriteResult:
        with self._alone():
            if self.position() != before:
                raise self._second_writer()
            deliveries = list(self._deliveries(release))
            rejected: list[RejectedRecord] = []
            for start in range(0, len(deliveries), self._target.batch):
                self._deliver(deliveries[start : start + self._target.batch], rejected, taken=start - len(rejected))
            if rejected:
                quarantine(rejected)
            self._store(after)
        refused = {each.index for each in rejected}
        withdrawn = sum(gone and index not in refused for index, gone in enumerate(release.withdrawn))
        return WriteResult(upserted=len(release) - withdrawn - len(rejected), withdrawn=withdrawn, rejected=rejected)

    @override
    def close(self) -> None:
        self._http.close()

    def _deliveries(self, release: DecodedRelease) -> Iterator[_Delivery]:
        rows = iter(json_rows(release.records))
        for index, (key, at, gone) in enumerate(zip(release.keys, release.recorded_at, release.withdrawn, strict=True)):
            value = "" if gone else next(rows)
            facts = f"{self._grant} {key.hex()} {at} {value}"
            id_ = hashlib.sha256(facts.encode()).hexdigest()[:32]
            own = {
                "id": id_,
                "record_key": key.hex(),
                "recorded_at": (_EPOCH + timedelta(microseconds=at)).isoformat(),
                "operation": "withdrawn" if gone else "upsert",
            }
            head = json.dumps(own)
            yield _Delivery(index=index, id=id_, text=head if gone else f'{head[:-1]}, "value": {value}}}')

    def _deliver(self, deliveries: Sequence[_Delivery], rejected: list[RejectedRecord], *, taken: int) -> int:
        """Post records; halve those that are refused. Return how many were taken, of these and of those before."""
        status = self._post(deliveries)
        if status is None:
            return taken + len(deliveries)
        if len(deliveries) > 1:
            half = len(deliveries) // 2
            taken = self._deliver(deliveries[:half], rejected, taken=taken)
            return self._deliver(deliveries[half:], rejected, taken=taken)
        code = RejectCode.TOO_LARGE if status == 413 else RejectCode.TARGET_REJECTED
        message = f"a record that the webhook takes; it answered {status}"
        rejected.append(RejectedRecord(index=deliveries[0].index, code=code, field="", message=message))
        if not taken and len(rejected) > _SUSPICIOUS:
            raise RefusedError(
                Reason.TARGET_REJECTED,
                f"the webhook refused {len(rejected)} records and took none, the last with {status}; nothing was set "
                "aside. Is it meant for these records?",
            )
        return taken

    def _post(self, deliveries: Sequence[_Delivery]) -> int | None:
        """Post records until there is an answer to them; return the status if they are refused, None if delivered.

        Raises:
            UnavailableError: TARGET_UNAVAILABLE.
            RefusedError: TARGET_REJECTED, the address or the credentials are wrong.
        """
        id_ = hashlib.sha256("".join(each.id for each in deliveries).encode()).hexdigest()
        grant = json.dumps(self._grant)
        body = f'{{"grant": {grant}, "records": [{", ".join(each.text for each in deliveries)}]}}'.encode()
        while True:
            self._breaker.require()
            try:
                status, wait = self._send(id_, body)
            except (httpx.TransportError, httpx.InvalidURL) as error:
                failure = UnavailableError(
                    Reason.TARGET_UNAVAILABLE, f"the webhook does not answer ({type(error).__name__})"
                )
            else:
                if 200 <= status < 300 or status in _OF_THE_RECORDS:
                    self._breaker.succeeded()
                    self._backoff.reset()
                    return None if status < 300 else status
                if status not in _TO_BE_REPEATED and status < 500:
                    raise RefusedError(
                        Reason.TARGET_REJECTED,
                        f"the webhook answered {status}; expected 2xx. Are its address and its secret right?",
                    )
                failure = UnavailableError(
                    Reason.TARGET_UNAVAILABLE, f"the webhook answered {status}", retry_after=wait
                )
            self._breaker.failed()
            if self._stop.is_set() or self._breaker.is_open:
                raise failure
            self._backoff.wait_or_raise(failure)
            if self._stop.is_set():
                raise failure

    def _send(self, id_: str, body: bytes) -> tuple[int, float | None]:
        """Return status and the seconds that the answer asks to wait."""
        now = self._clock()
        stamp = str(int(now.timestamp()))
        signature = hmac.digest(self._key, f"{id_}.{stamp}.".encode() + body, "sha256")
        headers = {
            "content-type": "application/json",
            "idempotency-key": id_,
            "webhook-id": id_,
            "webhook-timestamp": stamp,
            "webhook-signature": f"v1,{base64.b64encode(signature).decode()}",
        }
        with self._http.stream("POST", self._target.url, content=body, headers=headers) as answer:
            size, begun = 0, self._monotonic()
            for part in answer.iter_raw():
                size += len(part)
                # A target that sends a byte now and then would hold the subscription; its status is known.
                if size > _MAX_ANSWER or self._monotonic() - begun > self._target.timeout:
                    break
            return answer.status_code, retry_after_of(answer.headers.get("retry-after"), now)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Let no other process post from the same position within the block."""
        try:
            descriptor = os.open(self._file.with_suffix(".lock"), _LOCK_FLAGS, 0o600)
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise self._second_writer() from error
            yield
        finally:
            os.close(descriptor)

    def _store(self, position: bytes) -> None:
        content: dict[str, Any] = {"grant": self._grant, "position": base64.b64encode(position).decode()}
        try:
            replace_file(self._file.parent, self._file.name, json.dumps(content).encode())
        except OSError as error:
            raise self._unwritable(error) from error

    def _second_writer(self) -> ConflictError:
        return ConflictError(
            Reason.VERSION_CONFLICT,
            f"the position in {self._file} is not what this process last stored, or another process posts under this "
            "grant. Stop one of them",
        )

    def _unwritable(self, error: OSError) -> UnavailableError:
        return UnavailableError(
            Reason.TARGET_UNAVAILABLE,
            f"{self._file} cannot be read or written ({error.strerror}); is there room, and permission?",
        )
