"""An agent whose skills do one thing each, and how tests use it."""

import asyncio

from pydantic import BaseModel

from sidecard import Agent, Task
from sidecard.tasks.engine import Engine
from sidecard.testing import caller, message


class Order(BaseModel):
    """What the test skills take."""

    what: str
    count: int = 1


class Receipt(BaseModel):
    """What they give."""

    said: str


class Shop:
    """An agent whose skills count what they do."""

    def __init__(self) -> None:  # noqa: C901, PLR0915 -- a skill each
        self.agent = Agent(name="shop", version="1", description="Sells.", publisher="Tests", asks=("approve",))
        self.effects = 0
        self.runs = 0
        self.keys: list[str] = []
        self.gate = asyncio.Event()
        agent = self.agent

        @agent.skill(scope="look", idempotent=True)
        async def look(order: Order, task: Task) -> Receipt:
            """Look."""
            self.runs += 1
            return Receipt(said=f"{order.count} {order.what}")

        @agent.skill(scope="buy", idempotent=False)
        async def buy(order: Order, task: Task) -> Receipt:
            """Buy, once."""

            async def pay() -> str:
                self.effects += 1
                return "paid"

            return Receipt(said=await task.once("pay", pay))

        @agent.skill(scope="order", idempotent=False)
        async def order(order: Order, task: Task) -> Receipt:
            """Order, under a key that the other side knows a repetition by."""

            async def place(key: str) -> str:
                self.keys.append(key)
                return "placed"

            return Receipt(said=await task.once("place", place, repeatable=True))

        @agent.skill(scope="nap", idempotent=False)
        async def nap(order: Order, task: Task) -> Receipt:
            """Sleep a little."""
            before = await task.now()
            await task.sleep(0.01)
            return Receipt(said=f"{(await task.now()) >= before}")

        @agent.skill(scope="talk", idempotent=False)
        async def talk(order: Order, task: Task) -> str:
            """Say much, two of them in turns: chunks of one text would become one."""
            for number in range(order.count):
                await task.chunk(("he", "she")[number % 2], f"{number} ", last=number >= order.count - 2)
            return "done"

        @agent.skill(scope="tell", idempotent=False)
        async def tell(order: Order, task: Task) -> str:
            """Say much, alone, in chunks."""
            for number in range(order.count):
                await task.chunk("tale", f"{number} ", last=number == order.count - 1)
            return "done"

        @agent.skill(scope="choose", idempotent=False)
        async def choose(order: Order, task: Task) -> Receipt:
            """Ask which one."""
            self.runs += 1
            await task.progress("thinking")
            moment = await task.now()
            answer = await task.ask("Which colour?", options={"r": "red", "g": "green"})
            assert await task.step("time", asyncio.sleep, 0, moment.isoformat()) == moment.isoformat()
            return Receipt(said=f"{answer.choice} by {answer.by}")

        @agent.skill(scope="through", idempotent=False)
        async def through(order: Order, task: Task) -> Receipt:
            """Have another agent do it."""
            self.runs += 1
            done = await task.delegate("maker", "make", order, output=Receipt)
            return Receipt(said=f"made: {done.said}")

        @agent.skill(scope="both", idempotent=False)
        async def both(order: Order, task: Task) -> Receipt:
            """Have two others do it side by side."""
            async with task.group() as group:
                one = group.start(task.delegate("maker", "make", order, output=Receipt))
                two = group.start(task.delegate("tester", "test", order, output=Receipt))
            return Receipt(said=f"{one.result().said} and {two.result().said}")

        @agent.skill(scope="slow", idempotent=False)
        async def slow(order: Order, task: Task) -> Receipt:
            """Wait for the gate."""
            self.runs += 1
            await self.gate.wait()
            return Receipt(said="at last")

        @agent.skill(scope="broken", idempotent=False)
        async def broken(order: Order, task: Task) -> Receipt:
            """Fail."""
            raise RuntimeError("secret detail")

        @agent.skill(scope="picky", idempotent=True)
        async def picky(order: Order, task: Task) -> Receipt:
            """Refuse."""
            task.reject("not today")
            raise AssertionError

    def skill(self, name: str):
        return self.agent.skills[name]


async def send(engine: Engine, shop: Shop, skill: str, message_id: str = "m1", *, data=None, text: str = ""):
    data = {"what": "hat"} if data is None and not text else data
    sent = message(text, message_id, data=data)
    return await engine.intake.create(caller(shop.agent), "", shop.skill(skill), sent)


async def settled(engine: Engine, task_id: str):
    async with engine.borrow(task_id) as live:
        await asyncio.wait_for(live.settled(), 5)
        return live.folded.public()


async def answer(engine: Engine, shop: Shop, task_id: str, text: str, message_id: str = "a1"):
    async with engine.borrow(task_id) as live:
        await engine.intake.answer(live, caller(shop.agent), message(text, message_id, task_id=task_id))


def said(task) -> str:
    return task.artifacts[-1].parts[0].data.struct_value["said"]


def text_of(artifact) -> str:
    """The text of an artifact, however it is divided."""
    return "".join(part.text for part in artifact.parts)


def text_told(events) -> str:
    """All the text that a stream gives out, that of the task which it begins with included."""
    return "".join(map(text_of, [*events[0].artifacts, *(e.artifact for e in events[1:] if hasattr(e, "artifact"))]))


async def ticks(count: int) -> None:
    """Let the event loop turn."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(true) -> None:
    """Let the event loop turn until something is true."""
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 -- any condition
            await asyncio.sleep(0)


async def idle(engine: Engine) -> None:
    """Return once nothing of the engine's tasks is left in memory; fails when something stays there."""
    try:
        async with asyncio.timeout(20):
            while engine._lives or engine._lives._loading or engine._background:  # noqa: ASYNC110 -- any condition
                await asyncio.sleep(0.0005)
    except TimeoutError:
        raise AssertionError(f"left: {[vars(live) for live in engine._lives.values()]} {engine._background}") from None
