"""Enrolment servicers: one-time tokens on the listener without client certificates, renewal on the mutual one."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from exchange.api.problems import as_pool_error, rpc_status
from exchange.api.statuses import STATUS, peer_certificate
from exchange.authorization.authentications import Interface, Origin
from exchange.authorization.request_context import RequestContext
from exchange.identity.enrolment import EnrolledConnector
from exchange.identity.failure_limiter import source_of
from exchange.pool import Pool
from schemas.identifiers import random_id
from schemas.proto.pool.v1 import enrolment_pb2 as wire
from schemas.proto.pool.v1 import enrolment_pb2_grpc as stubs

__all__ = ["EnrolmentServicer", "RenewalServicer"]


class _Servicer:
    def __init__(self, pool: Pool, threads: ThreadPoolExecutor, gateway: Callable[[], str]) -> None:
        self._pool = pool
        self._threads = threads
        self._gateway = gateway

    async def _answer(
        self, context: Any, interface: Interface, work: Callable[[RequestContext], EnrolledConnector]
    ) -> wire.EnrolReply:
        call = RequestContext(trace=random_id())
        origin = Origin(interface, source_of(context.peer()))

        def attempt() -> EnrolledConnector:
            with self._pool.authentications.attempt(origin, certified=interface is Interface.GRPC):
                return work(call)

        try:
            enrolled = await asyncio.get_running_loop().run_in_executor(self._threads, attempt)
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

    async def Renew(self, request: wire.RenewRequest, context: Any) -> wire.EnrolReply:  # noqa: N802 - gRPC's name
        """Issue the next certificate."""

        def work(call: RequestContext) -> EnrolledConnector:
            actor = self._pool.identify(peer_certificate(context))
            return self._pool.administration.renew(actor, call, request.certificate_request)

        return await self._answer(context, Interface.GRPC, work)
