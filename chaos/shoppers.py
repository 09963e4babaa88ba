"""Clients that want their tasks done, whatever happens to the replicas that they talk to."""

import asyncio
import contextlib
import itertools
import random
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from chaos.cluster import HEADERS

TERMINAL = {f"TASK_STATE_{state}" for state in ("COMPLETED", "FAILED", "CANCELED", "REJECTED")}
ASKS = "TASK_STATE_INPUT_REQUIRED"
POLL_SECONDS = 0.1
RETRY_SECONDS = 10.0
"""How long a client with sensible retries goes on trying; these go on, but count the request as failed for good."""
UNSUPPORTED, NOT_CANCELABLE, NOT_FOUND = -32004, -32002, -32001
INVALID_PARAMS = -32602
"""Of A2A: the task takes no more messages, can't be canceled (any more), isn't there; and JSON-RPC's own."""
SKILLS = "https://sidecard.dev/a2a/extensions/durable-skills/v1"
Call = tuple[str, dict[str, Any]]


@dataclass
class Wish:
    """One task that somebody wants. `task_id` is set once it is acknowledged, `state` once it has ended.

    `seen` are the states that its client saw, in order; `answered` whether an answer of its was taken, `canceled`
    whether it was told that the task is canceled; `gone` whether an acknowledged task was not found later.
    """

    skill: str
    count: int = 1
    webhook: str = ""
    cancel_after: float | None = None
    message_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    task_id: str = ""
    acknowledged_at: float = 0.0
    ended_at: float = 0.0
    state: str = ""
    seen: list[str] = field(default_factory=list)
    answered: bool = False
    canceled: bool = False
    gone: bool = False

    @property
    def answer_id(self) -> str:
        """The messageId of its answer."""
        return f"{self.message_id}-answer"


class Shoppers:
    """Make wishes come true by trying again, under the same messageId, at any replica; `seed` decides which."""

    def __init__(self, urls: Sequence[str], seed: int) -> None:
        self.urls = [f"{url}/a2a" for url in urls]
        self.requests = 0
        self.refusals = 0
        self.failed = 0
        self._chance = random.Random(seed)
        self._ids = itertools.count(1)
        self._http = httpx.AsyncClient(headers=HEADERS, timeout=30.0, limits=httpx.Limits(max_connections=200))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def fulfil(self, wish: Wish) -> None:
        """Send a wish until it is acknowledged, then look, and answer what it asks, until it has ended."""
        await self.send(wish)
        async with asyncio.TaskGroup() as group:
            if wish.cancel_after is not None:
                group.create_task(self._cancel(wish))
            group.create_task(self.await_end(wish))

    async def send(self, wish: Wish) -> None:
        """Send a wish until it is acknowledged."""
        task = await self._insist(first_message(wish))
        wish.task_id, wish.acknowledged_at = task["id"], time.monotonic()
        _see(wish, task)

    async def await_end(self, wish: Wish) -> None:
        """Look, and answer what is asked, until an acknowledged task has ended, or is gone."""
        while wish.seen[-1] not in TERMINAL:
            if wish.seen[-1] == ASKS and not wish.answered:
                answer = _message(wish.answer_id, "red", task_id=wish.task_id)
                wish.answered = bool(await self._insist(answer, refused=UNSUPPORTED))
            await asyncio.sleep(POLL_SECONDS)
            task = await self._insist(("GetTask", {"id": wish.task_id}), refused=NOT_FOUND)
            if not task:
                wish.gone = True
                return
            _see(wish, task)
        wish.state, wish.ended_at = wish.seen[-1], time.monotonic()

    async def _cancel(self, wish: Wish) -> None:
        await asyncio.sleep(wish.cancel_after or 0.0)
        task = await self._insist(("CancelTask", {"id": wish.task_id}), refused=NOT_CANCELABLE)
        wish.canceled = bool(task) and task["status"]["state"] == "TASK_STATE_CANCELED"

    async def _insist(self, call: Call, *, refused: int = 0) -> dict[str, Any]:
        """The task that a call answers with, asked for until it does; {} for a refusal with that code."""
        method, params = call
        began, failed = time.monotonic(), False
        self.requests += 1
        while True:
            request = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}
            answer: dict[str, Any] = {}
            with contextlib.suppress(httpx.HTTPError, ValueError):
                answer = (await self._http.post(self._chance.choice(self.urls), json=request)).json()
            if "result" in answer:
                result: dict[str, Any] = answer["result"].get("task") or answer["result"]
                return result
            code = answer.get("error", {}).get("code")
            if refused and code == refused:
                return {}
            if code == INVALID_PARAMS:
                raise RuntimeError(f"{method} was sent wrongly: {answer}")
            self.refusals += 1
            if not failed and time.monotonic() - began > RETRY_SECONDS:
                failed = True
                self.failed += 1
            await asyncio.sleep(POLL_SECONDS)


def _see(wish: Wish, task: dict[str, Any]) -> None:
    state = task["status"]["state"]
    if not wish.seen or wish.seen[-1] != state:
        wish.seen.append(state)


def first_message(wish: Wish) -> Call:
    """The call that begins a wish's task."""
    return _message(
        wish.message_id,
        {"wish": wish.message_id, "what": "hat", "count": wish.count},
        skill=wish.skill,
        webhook=wish.webhook,
    )


def _message(message_id: str, content: object, *, skill: str = "", task_id: str = "", webhook: str = "") -> Call:
    part = {"text": content} if isinstance(content, str) else {"data": content}
    message: dict[str, Any] = {"messageId": message_id, "role": "ROLE_USER", "parts": [part]}
    configuration: dict[str, Any] = {"returnImmediately": True}
    if task_id:
        message["taskId"] = task_id
    if skill:
        message["metadata"] = {SKILLS: {"skill": skill}}
    if webhook:
        configuration["taskPushNotificationConfig"] = {"id": "w", "url": webhook}
    return "SendMessage", {"message": message, "configuration": configuration}
