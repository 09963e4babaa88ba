"""A store that is only read."""

import pytest

from sidecard.tasks.read_only import ReadOnly, WriteRefused
from sidecard.testing import MemoryStore


async def test_a_read_only_store_refuses_to_write():
    """What is there can be read, and is not changed."""
    store = MemoryStore()
    await store.write([("a", b"1")], {})
    reading = ReadOnly(store)
    assert await reading.read(["a", "b"]) == {"a": b"1"}
    with pytest.raises(WriteRefused):
        await reading.write([("b", b"2")], {})
    with pytest.raises(WriteRefused):
        await reading.delete(["a"])
    assert store.data == {"a": b"1"}
