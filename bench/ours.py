"""Our side: agents with one trivial skill each, served as every agent is. `python -m bench.ours NAME`."""

import asyncio
import sys

from sidecard import Agent, Task, serve

ERRANDS = "errands"
"""The agent that has others do its work; every other name is of one that does it."""
DELEGATIONS = 5


def agent(name: str) -> Agent:
    """An agent whose only skill does what the text says, as `bench.theirs` does too.

    "chunks N" streams N chunks, "wait" says something and then waits, any other text comes back.
    """
    made = Agent(name=name, version="1.0.0", description="Is measured.", publisher="bench")

    @made.skill(scope="bench:say", idempotent=True)
    async def say(text: str, task: Task) -> str:
        """Say it again."""
        word, _, count = text.partition(" ")
        if word == "chunks":
            for number in range(int(count)):
                await task.chunk("words", f"chunk {number} ")
        if word == "wait":
            await task.progress("waiting")
            await asyncio.sleep(3_600)
        return text

    return made


def errands() -> Agent:
    """An agent whose only skill delegates to the agent `ours`, several times, one after the other."""
    made = Agent(name=ERRANDS, version="1.0.0", description="Is measured.", publisher="bench")

    @made.skill(scope="bench:say", idempotent=True)
    async def run(text: str, task: Task) -> str:
        """Have it said again and again."""
        return " ".join([(await task.delegate("ours", "say", f"{text} {n}")).text for n in range(DELEGATIONS)])

    return made


if __name__ == "__main__":
    name = sys.argv[1]
    serve(errands() if name == ERRANDS else agent(name))
