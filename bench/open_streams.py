"""Holds streams open: reads an Order from a line of input, says how many streams have begun, waits for input's end."""

import asyncio
import json
import sys

import uvloop

from bench.load import Caller, Order, requests

AT_ONCE = 50
PATIENCE_SECONDS = 120.0


async def hold(order: Order) -> None:
    """Open them, some at once."""
    made, turn = requests(order), asyncio.Semaphore(AT_ONCE)
    loop = asyncio.get_running_loop()

    async def begin() -> bool:
        async with turn:
            _, caller = await loop.create_connection(Caller, "127.0.0.1", order.port)
            caller.send(next(made))
            while not caller.first:  # noqa: ASYNC110 -- the load tool's protocol has a clock, not an event
                await asyncio.sleep(0.01)
            return True

    async with asyncio.timeout(PATIENCE_SECONDS):
        begun = await asyncio.gather(*(begin() for _ in range(order.callers)))
    print(sum(begun), flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(hold(Order(**json.loads(sys.stdin.readline()))))
