"""What tasks and chunks cost at the state store: operations and bytes, counted at the engine's own store interface.

Counted in this process, one task after the other, over a store that takes as long as SQLite behind a sidecar: so
nobody shares a write, and the figures are the same on every machine.
"""

import asyncio
from collections.abc import Mapping, Sequence

from a2a.types import Message, Part, Role

from bench.ours import agent
from bench.report import Report
from sidecard.callers import Caller
from sidecard.testing import FakeAgents, MemoryStore, started

WRITE_SECONDS = 0.002
WARM_UP = 20
CALLER = Caller(name="bench", subject="bench", scopes=frozenset({"bench:say"}))


class CountingStore(MemoryStore):
    """Counts keys that are read, written and deleted, and the bytes written."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0
        self.bytes = 0

    async def write(
        self, creates: Sequence[tuple[str, bytes]], upserts: Mapping[str, bytes], deletes: Sequence[str] = ()
    ) -> None:
        """See tasks.store.StateStore."""
        await asyncio.sleep(WRITE_SECONDS)
        await super().write(creates, upserts, deletes)
        self.operations += len(creates) + len(upserts) + len(deletes)
        self.bytes += sum(map(len, [*dict(creates).values(), *upserts.values()]))

    async def read(self, keys: Sequence[str]) -> dict[str, bytes]:
        """See tasks.store.StateStore."""
        self.operations += len(keys)
        return await super().read(keys)


def costs(tasks: int, sizes: Sequence[int], report: Report) -> None:
    """Per task, over many; per chunk, in the longest stream, and how much more that is than in the shortest."""
    report.result("ops_per_task", asyncio.run(_count("hello", tasks))[0])
    per_event = {size: asyncio.run(_count(f"chunks {size}", 1)) for size in sizes}
    most = max(sizes)
    report.result("ops_per_event", per_event[most][0] / most)
    report.result("bytes_per_event", per_event[most][1] / most)
    for size, (operations, written) in per_event.items():
        report.say(f"a stream of {size:,}: {operations / size:.4f} operations, {written / size:.0f} bytes per chunk")


async def _count(text: str, tasks: int) -> tuple[float, float]:
    """(operations, bytes) per task."""
    store, made = CountingStore(), agent("cost")
    async with started(made, store, FakeAgents()) as engine:
        for number in range(WARM_UP + tasks):
            if number == WARM_UP:
                operations, written = store.operations, store.bytes
            message = Message(message_id=f"m{number}", role=Role.ROLE_USER, parts=[Part(text="hello")])
            if number >= WARM_UP:
                message.parts[0].text = text
            task_id = await engine.intake.create(CALLER, "", made.skills["say"], message)
            async with engine.borrow(task_id) as live:
                if live is None:
                    raise RuntimeError("the task is gone")
                await live.settled()
    return (store.operations - operations) / tasks, (store.bytes - written) / tasks
