"""A2A's gRPC service for verified callers (A2A 1.0 §10): the SDK's, with our rights, limits and errors."""

import ssl
from collections.abc import AsyncIterable, Awaitable, Callable
from contextvars import ContextVar
from typing import Any, TypeAlias, TypeVar, cast

import grpc
import grpc.aio
from a2a.server.context import ServerCallContext
from a2a.server.request_handlers.grpc_handler import DefaultGrpcServerCallContextBuilder
from a2a.server.request_handlers.request_handler import RequestHandler
from a2a.utils.errors import A2AError, InvalidRequestError
from google.protobuf.message import Message

from sidecard.callers import CallerUser, Claims
from sidecard.door import Admitted, Door
from sidecard.edge import check_version
from sidecard.grpc_errors import GrpcErrors

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_Answer = TypeVar("_Answer")
_ADMITTED: ContextVar[Admitted] = ContextVar("admitted")
"""Who makes the call that is answered: each is a task of its own. Without it a call is answered to nobody."""


class _ContextBuilder(DefaultGrpcServerCallContextBuilder):
    """Puts the metadata of a call where HTTP's headers are."""

    def build(self, context: Context) -> ServerCallContext:
        """The context of a call whose caller is not known yet."""
        built = super().build(context)
        built.state["headers"] = dict(context.invocation_metadata() or ())
        return built


class Service(GrpcErrors):
    """Answers the calls that it has admitted; a message that could not be read comes as None, to be refused."""

    def __init__(self, handler: RequestHandler, door: Door, prove: Callable[[str], None] = lambda _: None) -> None:
        """`prove` is told the peer of each connection on which a verified caller calls."""
        super().__init__(handler, _ContextBuilder())
        self._door, self._prove = door, prove

    async def admit(self, context: Context) -> Admitted:
        """Let the caller of a call in, before anything of it is read; it ends with what this returns.

        Where the door of the HTTP bindings raises, the call is ended with the error's status.
        """
        try:
            admitted = await self._door.admit(Claims.of(_metadata(context), _peer_certificate(context)))
        except A2AError as error:
            await self.abort_context(error, context)
            raise  # not reached: to end a call raises
        _ADMITTED.set(admitted)
        self._prove(context.peer())
        return admitted

    def check_version(self, version: str) -> None:
        """Raises VersionNotSupportedError for any A2A-Version but those that this service speaks."""
        check_version(version)

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
        self.check_version(dict(_metadata(context)).get("a2a-version", ""))
        if request is None:
            raise InvalidRequestError("The request is no message that this method takes, or nested too deep")
        await admitted.goes_on(cast("Any", request).tenant, stream=stream)
        made = self._build_call_context(context, request)
        made.user = CallerUser(admitted.caller)
        return made


def _metadata(context: Context) -> list[tuple[str, str]]:
    return [(key, value) for key, value in context.invocation_metadata() or () if isinstance(value, str)]


def _peer_certificate(context: Context) -> bytes | None:
    """The certificate (DER) that the client of a call has proven to be its own, of the client CA; None without."""
    shown = context.auth_context().get("x509_pem_cert")
    return ssl.PEM_cert_to_DER_cert(next(iter(shown)).decode()) if shown else None
