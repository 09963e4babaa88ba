"""The gRPC API of the own sidecar: a channel to it, its token, and the components that it has.

The generated stubs are used, since the Python SDK's own client waits for the sidecar synchronously, and can't say all
that the API takes.
"""

import grpc
import grpc.aio
from dapr.proto.runtime.v1 import dapr_pb2_grpc, metadata_pb2

from sidecard.errors import StoreUnavailable

MAX_MESSAGE = 32 * 1024 * 1024


class DaprApi:
    """`stub` has its calls; `metadata` is to go with each of them, and tells the sidecar who asks."""

    def __init__(self, *, port: int, token: str) -> None:
        self._channel = grpc.aio.insecure_channel(
            f"127.0.0.1:{port}",
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE),
                ("grpc.max_send_message_length", MAX_MESSAGE),
                ("grpc.enable_http_proxy", 0),  # the sidecar is on this machine, whatever proxy the environment names
            ],
        )
        self.stub = dapr_pb2_grpc.DaprStub(self._channel)  # type: ignore[no-untyped-call]
        self.metadata = (("dapr-api-token", token),)

    async def components(self, seconds: float) -> dict[str, str]:
        """The type of each component that the app may use, by name. Raises StoreUnavailable, in time."""
        try:
            found = await self.stub.GetMetadata(
                metadata_pb2.GetMetadataRequest(), metadata=self.metadata, timeout=seconds
            )
        except grpc.aio.AioRpcError as error:
            raise StoreUnavailable(f"the sidecar does not answer ({error.code().name}): {error.details()}") from error
        return {component.name: component.type for component in found.registered_components}

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close(None)
