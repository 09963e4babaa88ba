"""The gRPC binding (A2A 1.0 §10), on a port of its own: Dapr's data path carries HTTP to the app."""

import asyncio
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import Any, TypeAlias, TypeVar, cast

import grpc
import grpc.aio
from a2a.server.context import ServerCallContext
from a2a.server.request_handlers.grpc_handler import DefaultGrpcServerCallContextBuilder
from a2a.server.request_handlers.request_handler import RequestHandler
from a2a.types.a2a_pb2_grpc import add_A2AServiceServicer_to_server
from a2a.utils.errors import A2AError, InvalidRequestError
from google.protobuf.message import DecodeError, Message

from sidecard.callers import CallerUser, Claims
from sidecard.door import Admitted, Door
from sidecard.edge import check_version
from sidecard.grpc_errors import GrpcErrors
from sidecard.settings import Settings
from sidecard.telemetry import Telemetry
from sidecard.tls import TlsFiles, grpc_credentials

_Answer = TypeVar("_Answer")
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
"""What a connection may be, and do, whoever has opened it."""


Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_ADMITTED: ContextVar[Admitted] = ContextVar("admitted")
"""Who makes the call that is answered: each is a task of its own. Without it a call is answered to nobody."""


class _ContextBuilder(DefaultGrpcServerCallContextBuilder):
    """Puts the metadata of a call where HTTP's headers are."""

    def build(self, context: Context) -> ServerCallContext:
        """The context of a call whose caller is not known yet."""
        built = super().build(context)
        built.state["headers"] = dict(context.invocation_metadata() or ())
        return built


class _Service(GrpcErrors):
    """The SDK's gRPC service for verified callers, and for messages that could be read. `_Admitting` calls it."""

    def __init__(self, handler: RequestHandler, door: Door) -> None:
        super().__init__(handler, _ContextBuilder())
        self._door = door

    async def admit(self, context: Context) -> Admitted:
        """The call of a verified caller. Raises what the door of the HTTP bindings raises."""
        return await self._door.admit(Claims.of(_metadata(context), _peer_certificate(context)))

    async def _handle_unary(
        self,
        request: Message | None,
        context: Context,
        handler_func: Callable[[ServerCallContext], Awaitable[_Answer]],
        default_response: _Answer,
    ) -> _Answer:
        try:
            return await handler_func(await self._context_of(request, context, stream=False))
        except A2AError as error:
            await self.abort_context(error, context)
        return default_response

    async def _handle_stream(
        self,
        request: Message | None,
        context: Context,
        handler_func: Callable[[ServerCallContext], AsyncIterable[_Answer]],
    ) -> AsyncIterable[_Answer]:
        try:
            async for item in handler_func(await self._context_of(request, context, stream=True)):
                yield item
        except A2AError as error:
            await self.abort_context(error, context)

    async def _context_of(self, request: Message | None, context: Context, *, stream: bool) -> ServerCallContext:
        admitted = _ADMITTED.get()
        check_version(dict(_metadata(context)).get("a2a-version", ""))
        if request is None:
            raise InvalidRequestError("The request is no message that this method takes, or nested too deep")
        await admitted.goes_on(cast("Any", request).tenant, stream=stream)
        made = self._build_call_context(context, request)
        made.user = CallerUser(admitted.caller)
        return made


class _Admitting(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Identifies a call's caller, and only then reads its one message, in time; what is none, as None, to be refused.

    By itself gRPC reads the message first, of anybody; waits for it for ever; and would answer what can't be parsed
    with UNKNOWN, in the parser's words.
    """

    def __init__(self, service: _Service, message_seconds: float) -> None:
        self._service, self._seconds = service, message_seconds

    async def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        handler = cast("Any", await continuation(handler_call_details))
        if handler is None or handler.request_deserializer is None or handler.request_streaming:
            return cast("grpc.RpcMethodHandler[Any, Any]", handler)
        reading = (_or_none(handler.request_deserializer), handler.response_serializer)

        async def one(_: object, context: Any) -> Any:  # noqa: ANN401 -- of whatever type the method gives
            with await self._admitted(context):
                return await handler.unary_unary(await self._message(context), context)

        async def several(_: object, context: Any) -> AsyncIterator[Any]:  # noqa: ANN401
            with await self._admitted(context):
                async for answer in handler.unary_stream(await self._message(context), context):
                    yield answer

        if handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(several, *reading)
        return grpc.stream_unary_rpc_method_handler(one, *reading)

    async def _admitted(self, context: Any) -> Admitted:  # noqa: ANN401
        try:
            admitted = await self._service.admit(context)
        except A2AError as error:
            await self._service.abort_context(error, context)
            raise  # not reached: to end a call raises
        _ADMITTED.set(admitted)
        return admitted

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


def _metadata(context: Context) -> list[tuple[str, str]]:
    return [(key, value) for key, value in context.invocation_metadata() or () if isinstance(value, str)]


def _peer_certificate(context: Context) -> bytes | None:
    """The certificate (DER) that the client of a call has proven to be its own, of the client CA; None without."""
    shown = context.auth_context().get("x509_pem_cert")
    return ssl.PEM_cert_to_DER_cert(next(iter(shown)).decode()) if shown else None


def grpc_server(
    handler: RequestHandler,
    settings: Settings,
    telemetry: Telemetry,
    door: Door,
    message_seconds: float = MESSAGE_SECONDS,
) -> grpc.aio.Server:
    """A server for the binding, not started, on `settings.host` and `settings.grpc_port`; with a certificate, over TLS.

    Raises ConfigurationError when the certificates can't be used.
    """
    limits: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", settings.max_body_bytes),
        ("grpc.max_allowed_incoming_connections", settings.connections),
        *_LIMITS.items(),
    ]
    service = _Service(handler, door)
    interceptors = [*telemetry.grpc_interceptors(), _Admitting(service, message_seconds)]
    server = grpc.aio.server(interceptors=interceptors, options=limits)
    add_A2AServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call]
    address, files = f"{settings.host}:{settings.grpc_port}", TlsFiles.of(settings)
    if files is None:
        server.add_insecure_port(address)
    else:
        server.add_secure_port(address, grpc_credentials(files))
    return server
