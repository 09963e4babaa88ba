"""The state store behind the sidecar, reduced to the three things the engine needs of it."""

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from typing import Protocol

import grpc
import grpc.aio
from dapr.proto.common.v1 import common_pb2
from dapr.proto.runtime.v1 import state_pb2

from sidecard.dapr_api import DaprApi
from sidecard.errors import ConfigurationError, StoreUnavailable, TaskConflict
from sidecard.tasks.transaction_api import TransactionApi, looks_packed, packed, unpacked

SHORT = 32_768
"""Bytes of values up to which a transaction is sooner done over HTTP than over gRPC."""
TIMEOUT = 10.0
"""Seconds before an unanswered call counts as 'outcome unknown'; the journal then reads back what is there."""
REFUSALS = (grpc.StatusCode.ABORTED, grpc.StatusCode.INTERNAL, grpc.StatusCode.FAILED_PRECONDITION)
"""What a sidecar says when a key is taken, and of much else: so only a write that creates one is taken for refused."""
HERE = "zz:here"
"""A key that is always there, and comes last in the order of keys. Dapr 1.18 reads several keys from SQLite and
PostgreSQL without asking afterwards whether the database failed meanwhile: then they look as if they were absent."""

KINDS = {
    "state.postgresql": (True, True),
    "state.sqlite": (False, True),
    "state.redis": (True, False),
}
"""Dapr's components that tasks are kept in: whether replicas may share one, and whether a write is all or nothing."""


class Reads(Protocol):
    """What reading tasks asks of a store."""

    async def read(self, keys: Sequence[str]) -> dict[str, bytes]:
        """The values of those keys that exist. Raises StoreUnavailable."""


class StateStore(Reads, Protocol):
    """What the engine asks of a store."""

    @property
    def shared(self) -> bool:
        """Whether several replicas may use it at once."""

    @property
    def atomic(self) -> bool:
        """Whether a `write` is all or nothing; else each of its keys is decided alone."""

    async def write(
        self, creates: Sequence[tuple[str, bytes]], upserts: Mapping[str, bytes], deletes: Sequence[str] = ()
    ) -> None:
        """Write all of it, in one transaction where the store is `atomic`; `creates` only where the key is absent.

        Raises TaskConflict when the store refused (a key of `creates` may exist), StoreUnavailable when the outcome is
        not known. After either, read back what is there: stores name their errors differently.
        """

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove keys. Raises StoreUnavailable."""


class DaprStateStore:
    """A Dapr state component over the sidecar's APIs: short transactions by HTTP, everything else by gRPC.

    SQLite and PostgreSQL take a write as one transaction. In a transaction of Redis create-if-absent decides nothing,
    so there the keys are saved one by one, in one call.

    The Python SDK's transaction call can't carry the `first-write` option that makes a create decide.
    """

    shared = False
    atomic = True

    def __init__(self, *, grpc_port: int, http_port: int | None = None, token: str, component: str = "state") -> None:
        """The sidecar's ports on this machine, and the token that its API takes.

        Without the HTTP port all goes by gRPC, and documents are stored as they are, for others to read.
        """
        self.component = component
        self._api = DaprApi(port=grpc_port, token=token)
        self._always: list[str] = []
        self._short = TransactionApi(port=http_port, token=token, component=component) if http_port else None

    async def recognise(self) -> None:
        """Ask the sidecar what kind of store this is, and be sure of reads. Until then it is taken for SQLite.

        Raises ConfigurationError for one that tasks can't be trusted to, StoreUnavailable.
        """
        kinds = await self._api.components(TIMEOUT)
        if self.component not in kinds:
            raise ConfigurationError(f"the sidecar has no component {self.component!r}; see components/state.yaml")
        kind = kinds[self.component]
        if kind not in KINDS:
            raise ConfigurationError(
                f"the component {self.component!r} is {kind}, which is not known to keep what it has acknowledged; "
                f"use one of {', '.join(KINDS)}"
            )
        self.shared, self.atomic = KINDS[kind]
        if self.atomic:
            await self.write([], {HERE: b"here"})
            self._always = [HERE]

    async def write(
        self,
        creates: Sequence[tuple[str, bytes]],
        upserts: Mapping[str, bytes],
        deletes: Sequence[str] = (),
        *,
        swaps: Mapping[str, tuple[bytes, str]] | None = None,
    ) -> None:
        """See StateStore; `swaps` are written where a key's ETag is still this one, "" for a key that is absent."""
        size = sum(map(len, upserts.values())) + sum(len(value) for _, value in creates)
        if self._short is not None and self.atomic and size <= SHORT and not swaps:
            await self._short.write(creates, upserts, deletes, seconds=TIMEOUT)
            return
        items = [_item(key, value, _FIRST) for key, value in sorted(creates)]
        items += [_item(key, upserts[key], _LAST) for key in sorted(upserts)]
        items += [_item(key, value, _FIRST, etag) for key, (value, etag) in sorted((swaps or {}).items())]
        try:
            if self.atomic:
                await self._transact(items, deletes)
            else:
                await self._save(items, deletes)
        except grpc.aio.AioRpcError as error:
            if (creates or swaps) and error.code() in REFUSALS:
                raise TaskConflict(f"the state store refused a write: {error.details()}") from error
            raise _unavailable(error) from error

    async def _transact(self, items: Sequence[common_pb2.StateItem], deletes: Sequence[str]) -> None:
        operations = [state_pb2.TransactionalStateOperation(operationType="upsert", request=item) for item in items]
        for key in sorted(deletes):
            item = common_pb2.StateItem(key=key)
            operations.append(state_pb2.TransactionalStateOperation(operationType="delete", request=item))
        request = state_pb2.ExecuteStateTransactionRequest(storeName=self.component, operations=operations)
        await self._api.stub.ExecuteStateTransaction(request, metadata=self._api.metadata, timeout=TIMEOUT)

    async def _save(self, items: Sequence[common_pb2.StateItem], deletes: Sequence[str]) -> None:
        if items:
            request = state_pb2.SaveStateRequest(store_name=self.component, states=items)
            await self._api.stub.SaveState(request, metadata=self._api.metadata, timeout=TIMEOUT)
        if deletes:
            states = [common_pb2.StateItem(key=key) for key in sorted(deletes)]
            removal = state_pb2.DeleteBulkStateRequest(store_name=self.component, states=states)
            await self._api.stub.DeleteBulkState(removal, metadata=self._api.metadata, timeout=TIMEOUT)

    async def read(self, keys: Sequence[str]) -> dict[str, bytes]:
        """See StateStore. What does not fit into one answer of the sidecar (its `max-body-size`) is read in halves."""
        request = state_pb2.GetBulkStateRequest(store_name=self.component, keys=[*keys, *self._always], parallelism=8)
        try:
            response = await self._api.stub.GetBulkState(request, metadata=self._api.metadata, timeout=TIMEOUT)
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED and len(keys) > 1:
                half = len(keys) // 2
                return await self.read(keys[:half]) | await self.read(keys[half:])
            raise _unavailable(error) from error
        for item in response.items:
            if item.error:
                raise StoreUnavailable(f"the state store could not read {item.key}: {item.error}")
        found = {item.key: unpacked(item.data) for item in response.items if item.data}
        if any(found.pop(key, None) is None for key in self._always):
            raise StoreUnavailable("the state store broke off a read")
        return found

    async def delete(self, keys: Sequence[str]) -> None:
        """See StateStore."""
        await self.write([], {}, keys)

    async def close(self) -> None:
        """Close the connections to the sidecar."""
        if self._short is not None:
            self._short.close()
        await self._api.close()


_FIRST = common_pb2.StateOptions.CONCURRENCY_FIRST_WRITE
_LAST = common_pb2.StateOptions.CONCURRENCY_LAST_WRITE


def _item(
    key: str, value: bytes, concurrency: common_pb2.StateOptions.StateConcurrency.ValueType, etag: str = ""
) -> common_pb2.StateItem:
    options = common_pb2.StateOptions(concurrency=concurrency, consistency=common_pb2.StateOptions.CONSISTENCY_STRONG)
    item = common_pb2.StateItem(key=key, value=packed(value) if looks_packed(value) else value, options=options)
    if etag:
        item.etag.value = etag
    return item


def _unavailable(error: grpc.aio.AioRpcError) -> StoreUnavailable:
    return StoreUnavailable(f"the state store does not answer ({error.code().name}): {error.details()}")


async def prove(store: StateStore, name: str, key: str) -> None:
    """Race writers for one key in both forms the journal uses, and refuse a store that lets two of them win.

    Raises ConfigurationError, saying what to use instead.
    """
    await _race(store, name, key, b"")
    await _race(store, name, key, bytes(SHORT))


async def _race(store: StateStore, name: str, key: str, filling: bytes) -> None:
    contenders = [b"writer %d" % number + filling for number in range(8)]

    async def contend(value: bytes) -> bool:
        try:
            await store.write([(key, value)], {})
        except TaskConflict:
            return False
        return True

    won = await asyncio.gather(*map(contend, contenders))
    winners = list(itertools.compress(contenders, won))
    stored = (await store.read([key])).get(key)
    await store.delete([key])
    if len(winners) != 1 or stored != winners[0]:
        raise ConfigurationError(
            f"the state store '{name}' let {len(winners)} of {len(contenders)} racing writers create one key: it can't "
            "guard tasks. Use state.postgresql (v2), or state.sqlite for one replica; see components/."
        )
