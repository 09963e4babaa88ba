"""What ListTasks says of all tasks: each is shown once, as it is, and counted as such."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import httpx
from a2a.types import TaskState

from chaos.cluster import HEADERS, Cluster

PATIENCE_SECONDS = 10.0
"""How long after the tasks have ended lists may be wrong: who was taken for dead may have to mend them."""


async def misreported(cluster: Cluster, states: Mapping[str, str]) -> int:
    """How many of these tasks, by id, are not listed once in these states, and how many totals are no counts.

    Returns as soon as that is none.
    """
    began = time.monotonic()
    async with httpx.AsyncClient(headers=HEADERS, timeout=30.0) as http:
        while True:
            found = await asyncio.gather(*(_misreported(http, f"{url}/a2a", states) for url in cluster.urls))
            if not any(found) or time.monotonic() - began > PATIENCE_SECONDS:
                return max(found)
            await asyncio.sleep(0.2)


async def _misreported(http: httpx.AsyncClient, url: str, states: Mapping[str, str]) -> int:
    shown: Counter[tuple[str, str]] = Counter()
    more: str | None = ""
    total = 0
    while more is not None:
        page = await _page(http, url, pageSize=100, pageToken=more)
        shown.update((task["id"], task["status"]["state"]) for task in page.get("tasks", ()))
        more, total = page.get("nextPageToken") or None, page.get("totalSize", 0)
    counts = Counter(state for _, state in shown)
    times = Counter(task_id for task_id, _ in shown.elements())
    wrong = sum(shown[task_id, state] != 1 or times[task_id] != 1 for task_id, state in states.items())
    for state in TaskState.keys()[1:]:
        page = await _page(http, url, pageSize=1, status=state)
        wrong += page.get("totalSize", 0) != counts[state]
    return wrong + (total != shown.total())


async def _page(http: httpx.AsyncClient, url: str, **params: str | int) -> dict[str, Any]:
    request = {"jsonrpc": "2.0", "id": 1, "method": "ListTasks", "params": {k: v for k, v in params.items() if v}}
    while True:
        answer = (await http.post(url, json=request)).json()
        if "result" in answer:
            result: dict[str, Any] = answer["result"]
            return result
        await asyncio.sleep(0.1)
