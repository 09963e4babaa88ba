"""One replica of a shop, as a process; see `python -m chaos.replica --help`.

Its effects are lines of a ledger, a file that outlives it; a crash can't take a line back.
"""

import argparse
import asyncio
import contextlib
import hashlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NoReturn

from fastapi import FastAPI
from pydantic import BaseModel

from chaos import guards
from chaos.servers import TOKEN
from chaos.trap import Trap
from sidecard import Agent, Task
from sidecard.app import serve_on
from sidecard.callers import Callers, CallersFile
from sidecard.door import Door
from sidecard.egress import Destinations
from sidecard.grpc_server import grpc_server
from sidecard.http_server import http_server
from sidecard.push import Webhooks
from sidecard.refusals import Unavailable
from sidecard.settings import Settings
from sidecard.tasks import replicas, slots
from sidecard.tasks.cursor import Backoff
from sidecard.tasks.engine import Engine
from sidecard.tasks.handler import DurableRequestHandler
from sidecard.tasks.store import DaprStateStore
from sidecard.telemetry import Telemetry
from sidecard.testing import FakeAgents

KEY = "the key of whoever causes chaos"


class Order(BaseModel):
    """What the skills take; `wish` is the client's own name for what it wants."""

    wish: str = ""
    what: str = "hat"
    count: int = 1


class Receipt(BaseModel):
    """What they give."""

    said: str


def shop(ledger: Path) -> Agent:  # noqa: C901 -- its skills
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
        return Receipt(said=await task.once("pay", lambda: write(f"once {order.wish}")))

    @agent.skill(scope="shop", idempotent=False)
    async def order(order: Order, task: Task) -> Receipt:
        """Have an effect under a key that the other side knows a repetition by."""
        return Receipt(said=await task.once("place", lambda key: write(f"key {order.wish} {key}"), repeatable=True))

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
        await task.once("paint", lambda: write(f"once {order.wish}"))
        return Receipt(said=answer.choice or "")

    @agent.skill(scope="shop", idempotent=False)
    async def talk(order: Order, task: Task) -> str:
        """Speak in chunks."""
        for number in range(order.count):
            await task.chunk("talk", f"{number} ", last=number == order.count - 1)
            if number % 10 == 0:
                await asyncio.sleep(0.01)
        return "done"

    @agent.skill(scope="shop", idempotent=False)
    async def rest(order: Order, task: Task) -> Receipt:
        """Rest for so many tenths of a second, and then have an effect."""
        await task.step("rest", _rest, order.count)
        return Receipt(said=await task.once("pay", lambda: write(f"once {order.wish}")))

    return agent


async def _number(number: int) -> int:
    return number


async def _rest(tenths: int) -> int:
    await asyncio.sleep(tenths / 10)
    return tenths


def application(options: argparse.Namespace) -> FastAPI:
    """The shop over all three bindings, its tasks in the state store behind a sidecar."""
    agent = shop(options.ledger)
    file = CallersFile.model_validate({"callers": {"chaos": {"api_key": True, "grants": {"shop": ["shop"]}}}})
    callers = Callers("shop", file, app_token="", api_keys={hashlib.sha256(KEY.encode()).hexdigest(): "chaos"})
    webhooks = Webhooks(Destinations.parse(options.webhooks), timeout=1.0) if options.webhooks else None
    engines: list[Engine] = []

    def engine() -> Engine:
        if not engines:
            raise Unavailable("this replica is starting")
        return engines[0]

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        store = DaprStateStore(http_port=options.dapr_http, grpc_port=options.dapr_grpc, token=TOKEN)
        await store.recognise()
        started = Engine(
            agent,
            Trap(store, options.trap) if options.trap else store,
            task_id_key=b"chaos",
            delegator=FakeAgents(),
            scopes_of=lambda _: frozenset({"shop"}),
            sender=webhooks,
            backoff=Backoff(first=0.1, most=1.0),
        )
        await started.start()
        engines.append(started)
        server = grpc_server(
            handler, Settings(app_id="shop", grpc_port=options.grpc), Telemetry(), Door(callers.identify)
        )
        await server.start()
        yield
        await server.stop(1.0)
        await started.stop()
        await store.close()

    handler = DurableRequestHandler(
        engine, scopes_of=callers.scopes_of, extended_card=lambda _: _no_card(), webhooks=webhooks
    )
    app = FastAPI(openapi_url=None, lifespan=lifespan)
    serve_on(app, handler, Door(callers.identify), lambda: None, 4_194_304)
    return app


def _no_card() -> NoReturn:
    raise Unavailable("this replica has no card")


def main(arguments: list[str]) -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(prog="python -m chaos.replica")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--grpc", type=int, required=True, help="port of the gRPC binding")
    parser.add_argument("--dapr-http", type=int, required=True, help="HTTP port of the sidecar")
    parser.add_argument("--dapr-grpc", type=int, required=True, help="gRPC port of the sidecar")
    parser.add_argument("--ledger", type=Path, required=True)
    parser.add_argument("--webhooks", default="", help="the origin that webhooks may be at")
    parser.add_argument("--trap", type=Path, help="where it may be written at which write to die")
    parser.add_argument("--checkpoint", type=int, help="entries of the slot until a checkpoint")
    parser.add_argument("--dead", type=float, help="seconds without a sign of life until a replica counts as dead")
    parser.add_argument("--without", choices=guards.OFF, help="the guard that is off")
    options = parser.parse_args(arguments)
    if options.checkpoint:
        slots.CHECKPOINT_ENTRIES = options.checkpoint
    if options.dead:
        replicas.DEAD_SECONDS, replicas.BEAT_SECONDS = options.dead, options.dead / 6
    if options.without:
        guards.OFF[options.without]()
    os.environ["OTEL_INSTRUMENTATION_A2A_SDK_ENABLED"] = "false"
    http_server(application(options), Settings(app_id="shop", app_port=options.port)).run()


if __name__ == "__main__":
    main(sys.argv[1:])
