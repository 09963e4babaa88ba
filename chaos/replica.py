"""One replica of a shop, as a process: `python -m chaos.replica PORT DAPR_GRPC_PORT LEDGER`.

Its effects are lines of a ledger, a file that outlives it; a crash can't take a line back.
"""

import asyncio
import contextlib
import hashlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NoReturn

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from chaos.servers import TOKEN
from sidecard import Agent, Task
from sidecard.app import serve_on
from sidecard.callers import Callers, CallersFile
from sidecard.refusals import Unavailable
from sidecard.tasks.engine import Engine
from sidecard.tasks.handler import DurableRequestHandler
from sidecard.tasks.store import DaprStateStore
from sidecard.testing import FakeAgents

KEY = "the key of whoever causes chaos"


class Order(BaseModel):
    """What the skills take."""

    what: str = "hat"
    count: int = 1


class Receipt(BaseModel):
    """What they give."""

    said: str


def shop(ledger: Path) -> Agent:
    """An agent with a skill for each way to be hit."""
    agent = Agent(name="shop", version="1", description="Sells under fire.", publisher="Chaos")

    async def write(line: str) -> str:
        with ledger.open("a") as lines:
            lines.write(f"{line}\n")
        return line

    @agent.skill(scope="shop", idempotent=True)
    async def look(order: Order, task: Task) -> Receipt:
        """Look."""
        return Receipt(said=order.what)

    @agent.skill(scope="shop", idempotent=False)
    async def buy(order: Order, task: Task) -> Receipt:
        """Have an effect, once."""
        return Receipt(said=await task.once("pay", lambda: write(f"once {task.id}")))

    @agent.skill(scope="shop", idempotent=False)
    async def order(order: Order, task: Task) -> Receipt:
        """Have an effect under a key that the other side knows a repetition by."""
        return Receipt(said=await task.once("place", lambda key: write(f"key {key}"), repeatable=True))

    @agent.skill(scope="shop", idempotent=False)
    async def walk(order: Order, task: Task) -> Receipt:
        """Take recorded steps, with a rest between them."""
        steps = [await task.step("step", _number, number) for number in range(order.count)]
        await task.sleep(0.05)
        return Receipt(said=f"{sum(steps)}")

    @agent.skill(scope="shop", idempotent=False)
    async def ask(order: Order, task: Task) -> Receipt:
        """Ask, and have an effect when answered."""
        answer = await task.ask("Which colour?", options={"r": "red", "g": "green"})
        await task.once("paint", lambda: write(f"once {task.id}"))
        return Receipt(said=answer.choice or "")

    @agent.skill(scope="shop", idempotent=False)
    async def talk(order: Order, task: Task) -> str:
        """Speak in chunks."""
        for number in range(order.count):
            await task.chunk("talk", f"{number} ", last=number == order.count - 1)
            if number % 10 == 0:
                await asyncio.sleep(0.01)
        return "done"

    return agent


async def _number(number: int) -> int:
    return number


def application(port: int, grpc_port: int, ledger: Path) -> FastAPI:
    """The shop over JSON-RPC and HTTP+JSON, its tasks in the state store behind a sidecar."""
    agent = shop(ledger)
    file = CallersFile.model_validate({"callers": {"chaos": {"api_key": True, "grants": {"shop": ["shop"]}}}})
    callers = Callers("shop", file, app_token="", api_keys={hashlib.sha256(KEY.encode()).hexdigest(): "chaos"})
    engines: list[Engine] = []

    def engine() -> Engine:
        if not engines:
            raise Unavailable("this replica is starting")
        return engines[0]

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        store = DaprStateStore(port=grpc_port, token=TOKEN)
        await store.recognise()
        started = Engine(
            agent, store, task_id_key=b"chaos", delegator=FakeAgents(), scopes_of=lambda _: frozenset({"shop"})
        )
        await started.start()
        engines.append(started)
        yield
        await started.stop()
        await store.close()

    handler = DurableRequestHandler(engine, scopes_of=callers.scopes_of, extended_card=lambda _: _no_card())
    app = FastAPI(openapi_url=None, lifespan=lifespan)
    serve_on(app, handler, callers.identify, lambda: None, 4_194_304)
    return app


def _no_card() -> NoReturn:
    raise Unavailable("this replica has no card")


if __name__ == "__main__":
    own, dapr, lines = sys.argv[1:]
    os.environ["OTEL_INSTRUMENTATION_A2A_SDK_ENABLED"] = "false"
    uvicorn.run(application(int(own), int(dapr), Path(lines)), host="127.0.0.1", port=int(own), log_level="warning")
