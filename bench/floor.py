"""The least that durability costs: one state transaction with one small entry, from Python, through the sidecar.

`python -m bench.floor grpc|http HTTP_PORT GRPC_PORT TOKEN SECONDS` prints its p50 in ms: over gRPC as Dapr's SDK speaks
it, or as our store does.
"""

import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Literal

from dapr.proto.common.v1 import common_pb2
from dapr.proto.runtime.v1 import state_pb2

from sidecard.dapr_api import DaprApi
from sidecard.tasks.store import DaprStateStore

ENTRY_BYTES = 600
"""About what a short task's only entry has."""
WARM_UP = 20
FIRST = common_pb2.StateOptions(concurrency=common_pb2.StateOptions.CONCURRENCY_FIRST_WRITE)


def transaction_ms(over: Literal["grpc", "http"], store: tuple[int, int, str], seconds: float) -> float:
    """Measure it in a process of its own; see `estate.Estate.store`."""
    command = [sys.executable, "-m", "bench.floor", over, *map(str, store), str(seconds)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


async def _grpc(port: int, token: str, seconds: float) -> float:
    api = DaprApi(port=port, token=token)

    async def create(key: str, entry: bytes) -> None:
        item = common_pb2.StateItem(key=key, value=entry, options=FIRST)
        operation = state_pb2.TransactionalStateOperation(operationType="upsert", request=item)
        request = state_pb2.ExecuteStateTransactionRequest(storeName="state", operations=[operation])
        await api.stub.ExecuteStateTransaction(request, metadata=api.metadata, timeout=10)

    try:
        return await _p50_ms(create, seconds)
    finally:
        await api.close()


async def _http(http_port: int, grpc_port: int, token: str, seconds: float) -> float:
    store = DaprStateStore(http_port=http_port, grpc_port=grpc_port, token=token)
    p50 = await _p50_ms(lambda key, entry: store.write([(key, entry)], {}), seconds)
    await store.close()
    return p50


async def _p50_ms(create: Callable[[str, bytes], Awaitable[None]], seconds: float) -> float:
    entry, run = secrets.token_bytes(ENTRY_BYTES), secrets.token_hex(6)
    took: list[float] = []
    began = time.perf_counter()
    while len(took) < WARM_UP * 2 or time.perf_counter() - began < seconds:
        sent = time.perf_counter()
        await create(f"floor:{run}:{len(took)}", entry)
        took.append(time.perf_counter() - sent)
    return statistics.median(took[WARM_UP:]) * 1_000


if __name__ == "__main__":
    import uvloop

    over, given_http, given_grpc, given_token, given_seconds = sys.argv[1:]
    if over == "grpc":
        print(uvloop.run(_grpc(int(given_grpc), given_token, float(given_seconds))))
    else:
        print(uvloop.run(_http(int(given_http), int(given_grpc), given_token, float(given_seconds))))
