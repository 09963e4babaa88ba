"""Connections to addresses that others chose (webhooks, foreign agents): public ones only, or as the operator allows.

The name is resolved, its addresses are checked, and the connection goes to an address that was checked: in one place,
at the moment of connecting, so that a name which changes its mind in between (DNS rebinding) gains nothing.
"""

import asyncio
import ipaddress
import re
import socket
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpcore
import httpx

from sidecard.errors import ConfigurationError, SidecardError

PUBLIC = "public"
PORTS = {"https": 443, "http": 80}
MOST_ADDRESSES = 3
"""Addresses of one name that are tried."""
RESOLVERS = 8
"""Names looked up at once, in threads of their own: a name server that never answers holds up nothing else."""

_HOST = re.compile(r"[a-z0-9._-]{1,253}|[0-9a-f:.]{2,45}")
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NOT_FOR_US = [
    ipaddress.ip_network(network)
    for network in (
        "168.63.129.16/32",  # Azure's platform, in public space
        "192.0.0.0/24",  # special purposes, a cloud's metadata among them; not all of it is private to Python 3.11
        "192.88.99.0/24",  # 6to4 relays
        "2001::/23",  # Teredo and other special purposes
        "2002::/16",  # 6to4: any IPv4 address may hide in it
        "3fff::/20",  # documentation
    )
]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], Awaitable[list[str]]]
"""The IP addresses of a host, in the order of preference. Raises OSError."""


class DestinationRefused(SidecardError):
    """An address that this agent makes no connection to, because a caller and not its operator named it."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port of a URL; the host in lower case, as it goes into DNS."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> "Origin":
        """Raises DestinationRefused for what is no http or https address, or has a user in it."""
        try:
            parsed = httpx.URL(url)
            host = parsed.raw_host.decode("ascii").lower()
            parsed.host  # noqa: B018 -- which who connects would look at: raises for what only looks like IDNA
        except (httpx.InvalidURL, UnicodeError, ValueError) as error:
            raise DestinationRefused("it is not an address") from error
        port = parsed.port if parsed.port is not None else PORTS.get(parsed.scheme, 0)
        if parsed.scheme not in PORTS or not _HOST.fullmatch(host) or not 0 < port < 65_536:  # noqa: PLR2004 -- TCP's
            raise DestinationRefused("it is not https://host/path (or http:// where the operator allows that)")
        if parsed.userinfo:
            raise DestinationRefused("it has a user or password in it: those belong into `authentication`")
        return cls(parsed.scheme, host, port)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}" + ("" if self.port == PORTS[self.scheme] else f":{self.port}")


@dataclass(frozen=True, slots=True)
class Destinations:
    """Where an operator lets callers send this agent: https to public addresses, if `public`, and to these origins."""

    public: bool = False
    origins: frozenset[Origin] = frozenset()

    @classmethod
    def parse(cls, setting: str, variable: str = "SIDECARD_WEBHOOKS") -> "Destinations":
        """`public` and origins, by commas or blanks; "" is nowhere. Raises ConfigurationError, naming the variable."""
        origins = set()
        items = setting.replace(",", " ").split()
        for item in items:
            if item == PUBLIC:
                continue
            try:
                origin = Origin.of(item)
            except DestinationRefused as error:
                raise ConfigurationError(f"{variable} has {item!r}: {error}") from None
            if httpx.URL(item).raw_path not in (b"", b"/"):
                raise ConfigurationError(f"{variable} has {item!r}: give the origin alone, {origin}")
            origins.add(origin)
        return cls(PUBLIC in items, frozenset(origins))

    def __bool__(self) -> bool:
        return self.public or bool(self.origins)

    def check(self, url: str) -> Origin:
        """The origin of a URL that may be used. A name is checked again, by its addresses, when it is connected to.

        Raises DestinationRefused.
        """
        origin = Origin.of(url)
        if origin in self.origins:
            return origin
        if not self.public:
            raise DestinationRefused(f"{origin} is not among the origins that this agent's operator allows")
        if origin.scheme != "https":
            raise DestinationRefused("it is not https")
        try:
            literal = ipaddress.ip_address(origin.host)
        except ValueError:
            return origin
        check_address(literal)
        return origin

    def names(self, host: str, port: int) -> bool:
        """Whether the operator allows this host and port whatever its addresses are."""
        return any((origin.host, origin.port) == (host, port) for origin in self.origins)


def check_address(address: Address) -> None:
    """Raises DestinationRefused for an address that is not a public one."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:  # networks without IPv4 reach the whole of it through here
            return check_address(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
        if address.ipv4_mapped is not None:
            return check_address(address.ipv4_mapped)
        public = address in _GLOBAL_UNICAST
    else:
        public = not address.is_reserved
    in_use = not (address.is_multicast or any(address in network for network in _NOT_FOR_US))
    if not (public and in_use and address.is_global):
        raise DestinationRefused(f"{address} is not a public address")


class SafeBackend(httpcore.AsyncNetworkBackend):
    """Connects to what `destinations` allow. TLS is then done with the name, on the connection to the checked address.

    Any private address among a name's addresses makes it refused: nobody needs such a name.
    """

    def __init__(
        self,
        destinations: Destinations,
        resolve: Resolver | None = None,
        connect: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        self._destinations = destinations
        self._threads = ThreadPoolExecutor(RESOLVERS, thread_name_prefix="resolve")
        self._resolve = resolve or self._look_up
        self._connect = connect or httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 -- httpcore's interface
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to one of the host's addresses. Raises DestinationRefused, httpcore's errors."""
        ends = time.monotonic() + timeout if timeout is not None else None
        try:
            async with asyncio.timeout(timeout):
                found = await self._resolve(host, port)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(f"{host} could not be resolved in time") from error
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} could not be resolved") from error
        addresses = [ipaddress.ip_address(address) for address in found]
        if not self._destinations.names(host, port):
            for address in addresses:
                check_address(address)
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in addresses[:MOST_ADDRESSES]:
            left = ends - time.monotonic() if ends is not None else None
            try:
                return await self._connect.connect_tcp(str(address), port, left, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def connect_unix_socket(self, path: str, *_: object, **__: object) -> httpcore.AsyncNetworkStream:
        """Never."""
        raise DestinationRefused(f"{path} is no address")

    async def sleep(self, seconds: float) -> None:
        """See httpcore."""
        await asyncio.sleep(seconds)

    async def _look_up(self, host: str, port: int) -> list[str]:
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        return list(dict.fromkeys(str(address[0]) for *_, address in found))

    def close(self) -> None:
        """Look up nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)
