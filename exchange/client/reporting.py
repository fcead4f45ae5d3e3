"""Connector reports as messages of the wire, and the pool's answer as a value."""

from schemas.connector_report import ConnectorReport, ReconciliationTotals, ReportAnswer, StreamReport
from schemas.proto.pool.v1 import exchange_pb2 as wire

__all__ = ["answer_of", "report_to_wire", "totals_to_wire"]

_MAX_UINT32 = 2**32 - 1


def report_to_wire(report: ConnectorReport, header: wire.RequestHeader) -> wire.ReportRequest:
    """Return the message of a report."""
    return wire.ReportRequest(
        header=header,
        program=report.program,
        started=report.started,
        configuration=report.configuration,
        streams=[_stream_to_wire(one) for one in report.streams],
        ended=report.ended,
    )


def totals_to_wire(totals: ReconciliationTotals, header: wire.RequestHeader) -> wire.ReconciledRequest:
    """Return the message of totals."""
    return wire.ReconciledRequest(
        header=header,
        direction=totals.direction,
        stream=totals.stream,
        sequence=totals.sequence,
        ranges=[
            wire.RangeTotals(range=one.range, department=one.department, pool=one.pool, equal=one.equal)
            for one in totals.ranges
        ],
        set_aside=totals.set_aside,
        equal=totals.equal,
    )


def answer_of(reply: wire.ReportReply) -> ReportAnswer:
    """Return the pool's answer."""
    return ReportAnswer(next=reply.next, latest_program=reply.latest_program, notices=tuple(reply.notices))


def _stream_to_wire(stream: StreamReport) -> wire.Stream:
    return wire.Stream(
        name=stream.name,
        direction=stream.direction,
        state=stream.state,
        mode=stream.mode,
        reason=stream.reason,
        last_success=stream.last_success,
        sequence=stream.sequence,
        unacknowledged=min(stream.unacknowledged, _MAX_UINT32),
        keys=stream.keys,
        read=stream.read,
        published=stream.published,
        quarantined=stream.quarantined,
        unchanged=stream.unchanged,
        voided=stream.voided,
        quarantine={code: min(number, _MAX_UINT32) for code, number in stream.quarantine.items()},
        ledger_lost=stream.ledger_lost,
    )
