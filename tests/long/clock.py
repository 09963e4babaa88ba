"""An agent that streams a chunk each second. `python -m tests.long.clock NAME`."""

import asyncio
import sys

from sidecard import Agent, Task, serve


def clock(name: str) -> Agent:
    """The agent; how many seconds is what it is told."""
    agent = Agent(name=name, version="1.0.0", description="Ticks.", publisher="bench")

    @agent.skill(scope="bench:say", idempotent=True)
    async def tick(seconds: str, task: Task) -> str:
        """Tick."""
        for number in range(int(seconds)):
            await task.chunk("ticks", f"{number} ")
            await asyncio.sleep(1)
        return "done"

    return agent


if __name__ == "__main__":
    serve(clock(sys.argv[1]))
