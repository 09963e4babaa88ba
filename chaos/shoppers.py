"""Clients that want their tasks done, whatever happens to the replicas that they talk to."""

import asyncio
import itertools
import random
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

import httpx

from chaos.replica import KEY
from sidecard.callers import KEY_HEADER

TERMINAL = {f"TASK_STATE_{state}" for state in ("COMPLETED", "FAILED", "CANCELED", "REJECTED")}
POLL_SECONDS = 0.1
HEADERS = {KEY_HEADER: KEY, "A2A-Version": "1.0"}


@dataclass
class Wish:
    """One task that somebody wants. `task_id` is set once it is acknowledged, `state` once it has ended."""

    skill: str
    count: int = 1
    message_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    task_id: str = ""
    acknowledged_at: float = 0.0
    ended_at: float = 0.0
    state: str = ""


class Shoppers:
    """Make wishes come true by trying again, under the same messageId, at any replica; `seed` decides which."""

    def __init__(self, ports: list[int], seed: int) -> None:
        self.urls = [f"http://127.0.0.1:{port}/a2a" for port in ports]
        self._chance = random.Random(seed)
        self._ids = itertools.count(1)
        self._http = httpx.AsyncClient(headers=HEADERS, timeout=30.0, limits=httpx.Limits(max_connections=200))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def fulfil(self, wish: Wish) -> None:
        """Send a wish until it is acknowledged, then look, and answer what it asks, until it has ended."""
        data = {"what": "hat", "count": wish.count}
        task = await self._insist(_send(wish.message_id, wish.skill, data))
        wish.task_id, wish.acknowledged_at = task["id"], time.monotonic()
        while task["status"]["state"] not in TERMINAL:
            if task["status"]["state"] == "TASK_STATE_INPUT_REQUIRED":
                answered = _send(f"{wish.message_id}-answer", "", "red", task_id=wish.task_id)
                await self._insist(answered, refused=True)
            await asyncio.sleep(POLL_SECONDS)
            task = await self._insist(("GetTask", {"id": wish.task_id}))
        wish.state, wish.ended_at = task["status"]["state"], time.monotonic()

    async def _insist(self, call: tuple[str, dict[str, Any]], *, refused: bool = False) -> dict[str, Any]:
        """The task that a call answers with, asked for until it does; where `refused` is fine, {} for a refusal."""
        method, params = call
        while True:
            request = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}
            try:
                response = await self._http.post(self._chance.choice(self.urls), json=request)
                answer = response.json()
            except (httpx.HTTPError, ValueError):
                answer = {}
            if "result" in answer:
                result: dict[str, Any] = answer["result"].get("task") or answer["result"]
                return result
            if refused and answer.get("error", {}).get("code") == UNSUPPORTED:
                return {}
            await asyncio.sleep(POLL_SECONDS)


UNSUPPORTED = -32004
"""A2A's UnsupportedOperationError: the task had ended already."""


def _send(message_id: str, skill: str, content: object, task_id: str = "") -> tuple[str, dict[str, Any]]:
    part = {"text": content} if isinstance(content, str) else {"data": content}
    message: dict[str, Any] = {"messageId": message_id, "role": "ROLE_USER", "parts": [part]}
    if task_id:
        message["taskId"] = task_id
    if skill:
        message["metadata"] = {"https://sidecard.dev/a2a/extensions/durable-skills/v1": {"skill": skill}}
    return "SendMessage", {"message": message, "configuration": {"returnImmediately": True}}
