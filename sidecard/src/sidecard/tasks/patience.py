"""Asking a store that does not answer, until it does."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sidecard.errors import StoreUnavailable

RETRY_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)
"""How long to wait after the first, second … time; the last goes for all that follow."""

T = TypeVar("T")


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """What the store answers, asked until it does."""
    for attempt in itertools.count():
        try:
            return await ask()
        except StoreUnavailable:
            await pause(attempt)
    raise AssertionError


async def pause(attempt: int) -> None:
    """Wait before the next attempt; the first one that failed is number 0."""
    await asyncio.sleep(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])
