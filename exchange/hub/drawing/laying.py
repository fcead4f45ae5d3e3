"""The fast path of a step: its batch laid over golden records (`exchange.hub.fold.overlay`), without reading claims.

Of a batch only those subjects are tried that are named once in it, are linked with nobody, and either have a golden
record that stands on its own or got their key in this very step, and so have no claims from before. What the overlay
does not decide is folded from the claims, as is everything that this module does not try.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pyarrow as pa
import structlog

from exchange.hub.drawing.golden_codec import GoldenCodec
from exchange.hub.drawing.refold import Refolded
from exchange.hub.fold.claim import Claim, Instant, Value
from exchange.hub.fold.fold import Plan
from exchange.hub.fold.golden import Provenance, pack_provenance, unpack_provenance
from exchange.hub.fold.identity import Handle, bucket_of
from exchange.hub.fold.overlay import GoldenColumns, Overlaid, overlay
from exchange.hub.fold.rules import Kind
from exchange.hub.store.model import GoldenFlag, GoldenRow
from exchange.hub.store.sealing import Keyring, golden_context, seal, unseal
from schemas.errors import CorruptError

__all__ = ["Laying"]

_STANDING: Final = GoldenFlag(0)
_log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Laying:
    """Lays the batch of one step over golden records.

    Attributes:
        plan: the active rules.
        library: whose.
        ring: keys of the handles.
        codec: of the library's golden records.
        applied: number of the step's batch in each bucket.
        valid: the instant of the fold.
    """

    plan: Plan
    library: str
    ring: Keyring
    codec: GoldenCodec
    applied: Mapping[int, int]
    valid: Instant

    def lay(
        self,
        claims: Sequence[Claim],
        stated: Mapping[Handle, Mapping[str, Value]],
        golden: Mapping[Handle, GoldenRow],
    ) -> Refolded:
        """Return the rows of the subjects that can be decided.

        Args:
            claims: one a subject; each subject has a golden record that stands on its own, or no claim from before.
            stated: the values of each claim.
            golden: the records from before.
        """
        if not claims:
            return Refolded()
        try:
            return self._laid(claims, stated, golden)
        except CorruptError:
            raise  # a row of the hub that is not its own
        except Exception as error:  # noqa: BLE001 - the fold sets the subject aside that it is about, and no other
            _log.warning("hub_batch_not_laid", library=self.library, claims=len(claims), error=type(error).__name__)
            return Refolded()

    def _laid(
        self,
        claims: Sequence[Claim],
        stated: Mapping[Handle, Mapping[str, Value]],
        golden: Mapping[Handle, GoldenRow],
    ) -> Refolded:
        before = [self._opened(one.handle, golden.get(one.handle)) for one in claims]
        columns = GoldenColumns(
            values=self.codec.columns([values for values, _ in before], [one.name for one in self.plan.fields]),
            provenance=[provenance for _, provenance in before],
            linked=[False] * len(claims),
        )
        single = [one.name for one in self.plan.fields if one.kind is not Kind.SET]
        batch = self.codec.columns([stated[one.handle] for one in claims], single)
        batch |= {
            one.name: pa.array([stated[claim.handle].get(one.name) for claim in claims])
            for one in self.plan.fields
            if one.kind is Kind.SET
        }
        return self._rows(claims, overlay(self.plan, columns, claims, batch, self.valid))

    def _opened(self, handle: Handle, row: GoldenRow | None) -> tuple[Mapping[str, Value], Provenance | None]:
        key = self.ring.of(handle)
        if row is None or key is None:
            return {}, None
        (values,) = self.codec.decode([unseal(key, golden_context(row), row.sealed)])
        return values, unpack_provenance(row.prov)

    def _rows(self, claims: Sequence[Claim], laid: Overlaid) -> Refolded:
        found = Refolded()
        decided = np.flatnonzero(~laid.undecided)
        values = {name: column.take(pa.array(decided)) for name, column in laid.values.items()}
        framed = self.codec.encode_columns(values, len(decided))
        for at, value in zip(decided.tolist(), framed, strict=True):
            handle, provenance = claims[at].handle, laid.provenance[at]
            key = self.ring.of(handle)
            if key is None or provenance is None:
                continue
            row = GoldenRow(
                handle=handle, library=self.library, rules=self.plan.version, applied=self.applied[bucket_of(handle)],
                flags=_STANDING, sealed=b"", prov=pack_provenance(provenance),
            )  # fmt: skip
            found.golden.append(replace(row, sealed=seal(key, golden_context(row), value)))
            found.conflicts[handle] = laid.conflicts[at]
            found.subjects += 1
        return found
