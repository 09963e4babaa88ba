"""The gRPC port's connections: of those that nobody is known on only so many are kept, as over HTTP (`connections`).

gRPC's core takes connections by itself and tells of none before its first call; what it can do is refuse all once there
are too many, so that a flood of strangers would keep everybody out. But the sockets are this process's own: they are
counted a few times a second and, when they are many, looked through; the oldest of too many strangers' are shut down,
which gRPC takes for a client that left. A socket is shut down through a descriptor of our own, after it was seen to be
the one that is meant.
"""

import asyncio
import contextlib
import ipaddress
import logging
import os
import socket
import stat
from urllib.parse import unquote

import grpc.aio

from sidecard.connections import STRANGERS

log = logging.getLogger("sidecard")

LOOK_SECONDS = 0.2
"""How often the sockets are looked through: what connects meanwhile has that long to take the places kept free."""
UNSEEN_SECONDS = 10.0
"""How long nobody looks again where that fails: this machine has no descriptor left, or nothing to look at."""
_DESCRIPTORS = "/dev/fd"
_Socket = tuple[int, int]
"""A descriptor with its inode, so that one that is used again is another."""


class GrpcPlaces:
    """The connections to one port, of which one in STRANGERS of `most` may be strangers'."""

    def __init__(self, port: int, most: int) -> None:
        self._port, self._strangers = port, max(1, most // STRANGERS)
        self._seen: dict[_Socket, str] = {}
        """Sockets, the oldest first, and who is at the other end; "" for those that are none of the port's."""
        self._proven: dict[str, int] = {}
        self._looks = 0
        self._crowded = False

    def prove(self, peer: str) -> None:
        """A verified caller uses the connection with this peer, in gRPC's words."""
        self._proven[unquote(peer) if peer.startswith("ipv6") else peer] = self._looks

    def _are_many(self, descriptors: int) -> bool:
        """Whether there are so many descriptors, or callers remembered, that it is worth looking at each."""
        return max(descriptors, len(self._proven)) > self._strangers

    async def keep_free(self) -> None:
        """Look, again and again. Runs until it is cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                if not (self._crowded or self._are_many(len(os.listdir(_DESCRIPTORS)))):
                    continue
                self._seen = await asyncio.to_thread(_look, self._port, self._seen)
                self._crowded = self._are_many(len(self._seen))
            except OSError as error:
                log.warning("The gRPC port's connections can't be looked through, strangers may fill it: %s", error)
                await asyncio.sleep(UNSEEN_SECONDS)
                continue
            self._looks += 1
            there = set(self._seen.values())
            # Whoever has just been proven may be on a connection that was opened after the look began.
            self._proven = {
                peer: look for peer, look in self._proven.items() if peer in there or look >= self._looks - 1
            }
            strangers = [(one, peer) for one, peer in self._seen.items() if peer and peer not in self._proven]
            for (descriptor, _), peer in strangers[: -self._strangers]:
                _cut(descriptor, peer, self._port)


class GrpcServer:
    """A server, with its places kept free while it runs."""

    def __init__(self, server: grpc.aio.Server, places: GrpcPlaces) -> None:
        self._server, self._places = server, places
        self._keeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Serve."""
        await self._server.start()
        self._keeping = asyncio.create_task(self._places.keep_free(), name="gRPC's places")

    async def stop(self, grace: float | None) -> None:
        """Serve no more; what is under way has `grace` seconds to end."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        await self._server.stop(grace)


def _look(port: int, seen: dict[_Socket, str]) -> dict[_Socket, str]:
    """The sockets that there are: those that were seen before, then the others."""
    there: dict[_Socket, None] = {}
    for name in os.listdir(_DESCRIPTORS):
        with contextlib.suppress(OSError):  # gone meanwhile
            status = os.fstat(int(name))
            if stat.S_ISSOCK(status.st_mode):
                there[int(name), status.st_ino] = None
    known = {one: peer for one, peer in seen.items() if one in there}
    for one in sorted(there, key=_inode):
        if one not in known:
            with contextlib.suppress(OSError):  # not connected, or gone
                known[one] = _peer(one[0], port)
    return known


def _inode(one: _Socket) -> int:
    """Inodes of sockets are given out one after the other: the age of those that are seen for the first time."""
    return one[1]


def _peer(descriptor: int, port: int) -> str:
    with socket.socket(fileno=os.dup(descriptor)) as one:
        return _peer_of(one, port)


def _peer_of(one: socket.socket, port: int) -> str:
    """Who is at the other end of a connection to the port, in gRPC's words; "" of any other socket."""
    if one.family not in {socket.AF_INET, socket.AF_INET6} or one.getsockname()[1] != port:
        return ""
    host, far, *_ = one.getpeername()
    address = ipaddress.ip_address(host.partition("%")[0])
    address = getattr(address, "ipv4_mapped", None) or address
    return f"ipv4:{address}:{far}" if address.version == 4 else f"ipv6:[{address}]:{far}"  # noqa: PLR2004 -- IP's


def _cut(descriptor: int, peer: str, port: int) -> None:
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as one:
        if _peer_of(one, port) == peer:
            one.shutdown(socket.SHUT_RDWR)
