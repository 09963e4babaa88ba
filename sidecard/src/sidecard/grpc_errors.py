"""The SDK's gRPC service, which also knows the errors that A2A leaves to the server."""

import grpc
import grpc.aio
from a2a.server.request_handlers.grpc_handler import GrpcHandler
from a2a.utils.error_handlers import A2A_DOMAIN
from a2a.utils.errors import A2AError
from a2a.utils.grpc_status import status_to_grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from sidecard.refusals import MAPPINGS, TooManyRequests


class GrpcErrors(GrpcHandler):
    """The SDK's gRPC service, which also knows our errors."""

    async def abort_context(self, error: A2AError, context: grpc.aio.ServicerContext) -> None:  # type: ignore[type-arg]
        """End a call with the status that stands for the error, its reason among the details (§10.6)."""
        mapping = MAPPINGS.get(type(error))
        if mapping is None:
            await super().abort_context(error, context)
            return
        code = grpc.StatusCode[mapping.grpc_status]
        told: list[ErrorInfo | RetryInfo] = [ErrorInfo(reason=mapping.reason, domain=A2A_DOMAIN)]
        if isinstance(error, TooManyRequests):
            told.append(RetryInfo(retry_delay=Duration(seconds=error.retry_after)))
        details = [Any() for _ in told]
        for detail, one in zip(details, told, strict=True):
            detail.Pack(one)
        rich = status_to_grpc(Status(code=code.value[0], message=error.message, details=details))
        await context.abort(code, error.message, tuple(rich.trailing_metadata))
