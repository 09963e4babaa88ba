"""The gRPC binding (A2A 1.0 §10), on a port of its own: Dapr's data path carries HTTP to the app.

A2A 0.3's service is served beside that of 1.0: whoever speaks 0.3 calls another package.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, cast

import grpc
import grpc.aio
from a2a.server.request_handlers.request_handler import RequestHandler
from a2a.types import a2a_pb2
from a2a.types.a2a_pb2_grpc import add_A2AServiceServicer_to_server
from google.protobuf.message import DecodeError, Message

from sidecard.door import Door
from sidecard.grpc_03 import SERVICE as SERVICE_03
from sidecard.grpc_03 import Service03
from sidecard.grpc_connections import GrpcPlaces, GrpcServer
from sidecard.grpc_service import Service
from sidecard.settings import Settings
from sidecard.telemetry import Telemetry
from sidecard.tls import TlsFiles, grpc_credentials

SERVICE = a2a_pb2.DESCRIPTOR.services_by_name["A2AService"].full_name
MESSAGE_SECONDS = 60.0
"""How long the message of a call may take, as a body may over HTTP (see `edge`)."""
_LIMITS = {
    "grpc.so_reuseport": 0,
    "grpc.max_concurrent_streams": 256,  # calls at once on a connection; a client opens another one for more
    "grpc.max_metadata_size": 16_384,
    "grpc.server_handshake_timeout_ms": 10_000,  # connected, and says nothing
    "grpc.max_connection_idle_ms": 60_000,  # without a call; clients connect anew by themselves
    "grpc.keepalive_time_ms": 60_000,  # a client that is gone without a word is noticed by our own pings
    "grpc.keepalive_timeout_ms": 20_000,
    "grpc.http2.min_recv_ping_interval_without_data_ms": 10_000,  # a client's pings come no oftener, or it has to go
    "grpc.http2.max_ping_strikes": 2,
}
"""What a connection may be, and do, whoever has opened it; how many may be strangers' is up to `grpc_connections`."""


class _Admitting(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Identifies a call's caller, and only then reads its one message, in time; what is none, as None, to be refused.

    By itself gRPC reads the message first, of anybody; waits for it for ever; and would answer what can't be parsed
    with UNKNOWN, in the parser's words. A method that could not be treated so is not served.
    """

    def __init__(self, services: Mapping[str, Service], message_seconds: float) -> None:
        self._services, self._seconds = services, message_seconds

    async def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        handler = cast("Any", await continuation(handler_call_details))
        name, _, _ = handler_call_details.method[1:].rpartition("/")
        service = self._services.get(name)
        if handler is None or service is None or handler.request_deserializer is None or handler.request_streaming:
            return cast("grpc.RpcMethodHandler[Any, Any]", None)  # UNIMPLEMENTED
        reading = (_or_none(handler.request_deserializer), handler.response_serializer)

        async def one(_: object, context: Any) -> Any:  # noqa: ANN401 -- of whatever type the method gives
            with await service.admit(context):
                return await handler.unary_unary(await self._message(context), context)

        async def several(_: object, context: Any) -> AsyncIterator[Any]:  # noqa: ANN401
            with await service.admit(context):
                async for answer in handler.unary_stream(await self._message(context), context):
                    yield answer

        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(several, *reading)
        return grpc.stream_unary_rpc_method_handler(one, *reading)

    async def _message(self, context: Any) -> object:  # noqa: ANN401
        try:
            async with asyncio.timeout(self._seconds):
                message = await context.read()
        except TimeoutError:
            words = f"The call's message did not come within {self._seconds:g} s"
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, words)
        return message if isinstance(message, Message) else None  # what ends without a message gives gRPC's EOF


def _or_none(read: Callable[[bytes], object]) -> Callable[[bytes], object]:
    def read_or_none(data: bytes) -> object:
        try:
            return read(data)
        except DecodeError:
            return None

    return read_or_none


def grpc_server(
    handler: RequestHandler,
    settings: Settings,
    telemetry: Telemetry,
    door: Door,
    message_seconds: float = MESSAGE_SECONDS,
) -> GrpcServer:
    """A server for the binding, not started, on `settings.host` and `settings.grpc_port`; with a certificate, over TLS.

    Raises ConfigurationError when the certificates can't be used.
    """
    limits: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", settings.max_body_bytes),
        ("grpc.max_allowed_incoming_connections", settings.connections),
        *_LIMITS.items(),
    ]
    places = GrpcPlaces(settings.grpc_port or 0, settings.connections)
    service, service_03 = Service(handler, door, places.prove), Service03(handler, door, places.prove)
    services = {SERVICE: service, SERVICE_03: service_03}
    interceptors = [*telemetry.grpc_interceptors(), _Admitting(services, message_seconds)]
    server = grpc.aio.server(interceptors=interceptors, options=limits)
    add_A2AServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call]
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE_03, service_03.handlers()),))
    address, files = f"{settings.host}:{settings.grpc_port}", TlsFiles.of(settings)
    if files is None:
        server.add_insecure_port(address)
    else:
        server.add_secure_port(address, grpc_credentials(files))
    return GrpcServer(server, places)
