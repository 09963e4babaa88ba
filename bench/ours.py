"""Our side: an agent with one trivial skill, served as every agent is. `python -m bench.ours NAME`."""

import asyncio
import sys

from sidecard import Agent, Task, serve


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


if __name__ == "__main__":
    serve(agent(sys.argv[1]))
