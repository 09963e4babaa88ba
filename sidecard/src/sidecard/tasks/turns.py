"""Who may work now: bounded in all, and for each of those it is done for."""

import asyncio
from collections.abc import Mapping

Limits = Mapping[str, int]


class Turns:
    """Lets in at most so many at once for each value of each kind: `{"receiver": 8, "owner": 32}`, in that order.

    Who waits for a busy receiver takes no place from others.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._places: dict[tuple[str, str], tuple[asyncio.Semaphore, int]] = {}

    def turn(self, **whose: str) -> "_Turn":
        """Use it with `async with`: waits for a turn, in order of arrival. `whose` has a value for each kind."""
        return _Turn(self, [((kind, whose[kind]), most) for kind, most in self._limits.items()])

    def crowded(self, times: int, **whose: str) -> str:
        """The kind of place for which so many wait already: as often as the places there are. "" for none."""
        for kind, most in self._limits.items():
            _, users = self._places.get((kind, whose[kind]), (None, 0))
            if users >= most * (1 + times):
                return kind
        return ""

    async def _take(self, key: tuple[str, str], most: int) -> None:
        semaphore, users = self._places.get(key) or (asyncio.Semaphore(most), 0)
        self._places[key] = (semaphore, users + 1)
        try:
            await semaphore.acquire()
        except BaseException:
            self._leave(key)
            raise

    def _give(self, key: tuple[str, str]) -> None:
        self._places[key][0].release()
        self._leave(key)

    def _leave(self, key: tuple[str, str]) -> None:
        semaphore, users = self._places.pop(key)
        if users > 1:
            self._places[key] = (semaphore, users - 1)


class _Turn:
    """One turn: a place of each kind. A class, since each run of a skill takes one and most need not wait."""

    def __init__(self, turns: Turns, places: list[tuple[tuple[str, str], int]]) -> None:
        self._turns = turns
        self._places = places
        self._taken: list[tuple[str, str]] = []

    async def __aenter__(self) -> None:
        try:
            for key, most in self._places:
                await self._turns._take(key, most)
                self._taken.append(key)
        except BaseException:
            self._give_back()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._give_back()

    def _give_back(self) -> None:
        while self._taken:
            self._turns._give(self._taken.pop())
