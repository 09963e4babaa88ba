"""A webhook's other end, which answers 500, hangs, or takes what it is told and loses the reply."""

import asyncio
import contextlib
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from chaos.history import History

OK = b"HTTP/1.1 204 No Content\r\n\r\n"
FAILED = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n"
HANGS_SECONDS = 3.0
"""Longer than a replica here waits for an answer."""


@dataclass
class Receiver:
    """Keeps, by path, the places of the events that it has taken, in order, repeated ones too.

    It misbehaves in a share of all requests, by chance.
    """

    share: float
    chance: random.Random
    taken: dict[str, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))
    requests: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
                await reader.readexactly(int(headers["content-length"]))
                self.requests += 1
                how = self.chance.choice(("fails", "hangs", "loses")) if self.chance.random() < self.share else ""
                if how == "fails":
                    writer.write(FAILED)
                    continue
                if how == "hangs":
                    await asyncio.sleep(HANGS_SECONDS)
                    break
                n, number = headers["webhook-id"].split("_")[-2:]
                self.taken[head[0].split()[1]].append((int(n), int(number)))
                if how == "loses":
                    break
                writer.write(OK)
                await writer.drain()
        writer.close()

    def missed(self, path: str, log: History) -> int:
        """How many events of a task were never taken."""
        return len(set(log.events) - set(self.taken[path]))

    def disordered(self, path: str) -> bool:
        """Whether an event was taken for the first time after a later one."""
        first = list(dict.fromkeys(self.taken[path]))
        return first != sorted(first)

    def told(self, logs: Mapping[str, History]) -> bool:
        """Whether these tasks, by path, have been told in full."""
        return not any(self.missed(path, log) for path, log in logs.items())


@contextlib.asynccontextmanager
async def receiving(port: int, share: float, chance: random.Random) -> AsyncIterator[Receiver]:
    """A receiver on that port."""
    receiver = Receiver(share, chance)
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", port)
    try:
        yield receiver
    finally:
        server.close()
