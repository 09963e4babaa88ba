"""Who may work now: bounded in all, and for each of those it is done for."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping

Limits = Mapping[str, int]


class Turns:
    """Lets in at most so many at once for each value of each kind: `{"receiver": 8, "owner": 32}`, in that order.

    Who waits for a busy receiver takes no place from others.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._places: dict[tuple[str, str], tuple[asyncio.Semaphore, int]] = {}

    @contextlib.asynccontextmanager
    async def turn(self, **whose: str) -> AsyncIterator[None]:
        """Wait for a turn, in order of arrival. `whose` has a value for each kind."""
        async with contextlib.AsyncExitStack() as stack:
            for kind, most in self._limits.items():
                await stack.enter_async_context(self._place((kind, whose[kind]), most))
            yield

    @contextlib.asynccontextmanager
    async def _place(self, key: tuple[str, str], most: int) -> AsyncIterator[None]:
        semaphore, users = self._places.get(key) or (asyncio.Semaphore(most), 0)
        self._places[key] = (semaphore, users + 1)
        try:
            async with semaphore:
                yield
        finally:
            semaphore, users = self._places.pop(key)
            if users > 1:
                self._places[key] = (semaphore, users - 1)
