"""Enrolment servicers: one-time tokens on the listener without client certificates, renewal on the mutual one."""

from collections.abc import Callable
from typing import Any

from typing_extensions import override

from exchange.api.admission.fair_queue import Flow
from exchange.api.admission.scheduler import FairScheduler, flow_of, flow_of_source
from exchange.api.problems import as_pool_error, rpc_status
from exchange.api.statuses import STATUS, peer_certificate
from exchange.authorization.authentications import Interface, Origin
from exchange.authorization.request_context import RequestContext
from exchange.identity.enrolment import EnrolledConnector
from exchange.identity.failure_limiter import source_of
from exchange.pool import Pool
from schemas.errors import RefusedError
from schemas.identifiers import random_id
from schemas.proto.pool.v1 import enrolment_pb2 as wire
from schemas.proto.pool.v1 import enrolment_pb2_grpc as stubs

__all__ = ["EnrolmentServicer", "RenewalServicer"]


class _Servicer:
    def __init__(self, pool: Pool, scheduler: FairScheduler, gateway: Callable[[], str]) -> None:
        self._pool = pool
        self._scheduler = scheduler
        self._gateway = gateway

    def _flow(self, context: Any) -> Flow:
        return flow_of_source(source_of(context.peer()))

    async def _answer(
        self, context: Any, interface: Interface, work: Callable[[RequestContext], EnrolledConnector]
    ) -> wire.EnrolReply:
        call = RequestContext(trace=random_id())
        origin = Origin(interface, source_of(context.peer()))

        def attempt() -> EnrolledConnector:
            with self._pool.authentications.attempt(origin, certified=interface is Interface.GRPC):
                return work(call)

        try:
            enrolled = await self._scheduler.run(self._flow(context), attempt)
        except Exception as error:
            pool_error = as_pool_error(error)
            status = rpc_status(pool_error)
            details = (("grpc-status-details-bin", status.SerializeToString()),)
            await context.abort(STATUS[status.code], pool_error.message, details)
            raise
        return wire.EnrolReply(
            certificate_chain=enrolled.certificate,
            authority=enrolled.authority,
            pool_id=enrolled.pool_id,
            department=enrolled.department,
            not_after=int(enrolled.not_after.timestamp() * 1_000_000),
            gateway=self._gateway(),
        )


class EnrolmentServicer(_Servicer, stubs.EnrolmentServicer):
    """Implements `pool.v1.Enrolment`."""

    async def Enrol(self, request: wire.EnrolRequest, context: Any) -> wire.EnrolReply:  # noqa: N802 - gRPC's name
        """Enrol a connector with a one-time token."""
        return await self._answer(
            context,
            Interface.ENROLMENT,
            lambda call: self._pool.administration.enrol(
                call,
                secret=request.token,
                connector=request.connector,
                request=request.certificate_request,
                signing_key=request.signing_public_key,
                signing_proof=request.signing_proof,
            ),
        )


class RenewalServicer(_Servicer, stubs.RenewalServicer):
    """Implements `pool.v1.Renewal`."""

    @override
    def _flow(self, context: Any) -> Flow:
        try:
            return flow_of(self._pool.identify(peer_certificate(context)))
        except RefusedError:  # the call itself will say so
            return super()._flow(context)

    async def Renew(self, request: wire.RenewRequest, context: Any) -> wire.EnrolReply:  # noqa: N802 - gRPC's name
        """Issue the next certificate."""

        def work(call: RequestContext) -> EnrolledConnector:
            actor = self._pool.identify(peer_certificate(context))
            return self._pool.administration.renew(actor, call, request.certificate_request)

        return await self._answer(context, Interface.GRPC, work)
