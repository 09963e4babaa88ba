"""The gRPC binding (A2A 1.0 §10), on a port of its own: Dapr's data path carries HTTP to the app."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
import grpc.aio
from a2a.auth.user import User
from a2a.server.context import ServerCallContext
from a2a.server.request_handlers.grpc_handler import DefaultGrpcServerCallContextBuilder
from a2a.server.request_handlers.request_handler import RequestHandler
from a2a.types.a2a_pb2_grpc import add_A2AServiceServicer_to_server
from google.protobuf.message import DecodeError

from sidecard.callers import Caller, CallerUser, claims
from sidecard.edge import check_version
from sidecard.refusals import GrpcErrors, Unauthenticated
from sidecard.settings import Settings
from sidecard.telemetry import Telemetry


class _CallerContextBuilder(DefaultGrpcServerCallContextBuilder):
    """Verifies the caller of each call by its metadata."""

    def __init__(self, identify: Callable[[Mapping[str, str]], Caller | None]) -> None:
        self._identify = identify

    def build_user(self, context: grpc.aio.ServicerContext) -> User:  # type: ignore[type-arg]
        """The verified caller. Raises Unauthenticated, VersionNotSupportedError."""
        metadata = [(key, value) for key, value in context.invocation_metadata() or () if isinstance(value, str)]
        caller = self._identify(claims(metadata))
        if caller is None:
            raise Unauthenticated
        check_version(dict(metadata).get("a2a-version", ""))
        return CallerUser(caller)

    def build(self, context: grpc.aio.ServicerContext) -> ServerCallContext:  # type: ignore[type-arg]
        """The context of a call, its metadata where HTTP's headers are."""
        built = super().build(context)
        built.state["headers"] = dict(context.invocation_metadata() or ())
        return built


class _Readable(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Hands on bytes that are no request as None, to be refused; gRPC would answer UNKNOWN, in the parser's words."""

    async def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        handler = await continuation(handler_call_details)
        if handler is None or handler.request_deserializer is None:
            return handler
        read = handler.request_deserializer

        def read_or_none(data: bytes) -> object:
            try:
                return read(data)
            except DecodeError:
                return None

        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(handler.unary_stream, read_or_none, handler.response_serializer)
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(handler.unary_unary, read_or_none, handler.response_serializer)
        return handler


def grpc_server(
    handler: RequestHandler,
    settings: Settings,
    telemetry: Telemetry,
    identify: Callable[[Mapping[str, str]], Caller | None],
) -> grpc.aio.Server:
    """A server for the binding, not started, on `settings.host` and `settings.grpc_port`."""
    limits: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", settings.max_body_bytes),
        ("grpc.so_reuseport", 0),
    ]
    server = grpc.aio.server(interceptors=[*telemetry.grpc_interceptors(), _Readable()], options=limits)
    add_A2AServiceServicer_to_server(GrpcErrors(handler, _CallerContextBuilder(identify)), server)  # type: ignore[no-untyped-call]
    server.add_insecure_port(f"{settings.host}:{settings.grpc_port}")
    return server
