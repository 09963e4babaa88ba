"""Turns: so many at once for each, and for all."""

import asyncio

import pytest

from sidecard.tasks.turns import Turns
from tests.sidecard.tasks.shop import ticks


class Line:
    """Whoever comes stays until told to go."""

    def __init__(self, **limits):
        self.turns = Turns(limits)
        self.inside = []
        self.go = {}

    def come(self, name, **whose):
        self.go[name] = asyncio.Event()
        return asyncio.create_task(self._stay(name, whose))

    async def _stay(self, name, whose):
        async with self.turns.turn(**whose):
            self.inside.append(name)
            await self.go[name].wait()
        self.inside.remove(name)


async def test_who_waits_for_a_busy_one_takes_no_place_from_others():
    """However long that line is; within it they come in order."""
    line = Line(each=1, all=2)
    everybody = [line.come(f"a{n}", each="a", all="") for n in range(3)]
    everybody += [line.come(f"b{n}", each="b", all="") for n in range(2)]
    for expected in (["a0", "b0"], ["b0", "a1"], ["a1", "b1"], ["b1", "a2"], ["a2"], []):
        await ticks(5)
        assert line.inside == expected
        if line.inside:
            line.go[line.inside[0]].set()
    await asyncio.gather(*everybody)
    assert not line.turns._places, "who is gone is forgotten"


@pytest.mark.parametrize("limits", [{"each": 1, "all": 2}, {"each": 2, "all": 1}])
async def test_who_gives_up_waiting_leaves_nothing(limits):
    """Wherever it waited, its places are free for others."""
    line = Line(**limits)
    first = line.come("first", each="a", all="")
    gone = [line.come(f"gone{n}", each="a", all="") for n in range(3)]
    await ticks(5)
    for task in gone:
        task.cancel()
    await asyncio.gather(*gone, return_exceptions=True)
    line.go["first"].set()
    await first
    assert not line.turns._places
    last = line.come("last", each="a", all="")
    await ticks(5)
    assert line.inside == ["last"]
    line.go["last"].set()
    await last
