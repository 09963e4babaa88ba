"""A network of its own for a store, with a link to it for each replica, so that they can be cut: root on Linux only."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from chaos.servers import Place
from sidecard.errors import ConfigurationError


@dataclass(frozen=True)
class Link:
    """A pair of interfaces; the store's is in its namespace, and has `address`."""

    namespace: str
    interface: str
    here: str
    address: str

    def cut(self, *, silently: bool) -> None:
        """Cut it: both ends see it, or, `silently`, what is sent to the store arrives and no answer ever comes back."""
        if silently:
            _ip("-n", self.namespace, "route", "add", "blackhole", f"{self.here}/32")
        else:
            _ip("-n", self.namespace, "link", "set", self.interface, "down")

    def heal(self) -> None:
        """Make it whole."""
        _ip("-n", self.namespace, "link", "set", self.interface, "up")
        with contextlib.suppress(subprocess.CalledProcessError):
            _ip("-n", self.namespace, "route", "del", "blackhole", f"{self.here}/32")


@dataclass(frozen=True)
class Network:
    """The store's network."""

    links: list[Link]

    @property
    def place(self) -> Place:
        """Where the store is to be started."""
        return Place(("ip", "netns", "exec", self.links[0].namespace), self.links[0].address)


def missing() -> str:
    """Why there can be no such networks here, or ""."""
    if os.geteuid() or shutil.which("ip") is None:
        return "a partition needs network namespaces: run as root on Linux, with the package iproute2 installed"
    try:
        with network(1):
            return ""
    except ConfigurationError as error:
        return str(error)


@contextlib.contextmanager
def network(count: int) -> Iterator[Network]:
    """A namespace with that many links to it. Raises ConfigurationError where that can't be."""
    name = f"chaos{os.getpid()}"
    links = []
    try:
        _ip("netns", "add", name)
    except (subprocess.CalledProcessError, OSError) as error:
        raise ConfigurationError(f"there are no network namespaces here: {error}") from error
    try:
        _ip("-n", name, "link", "set", "lo", "up")
        for number in range(count):
            outer, inner, net = f"ch{os.getpid()}-{number}", f"store{number}", f"10.{os.getpid() % 256}.{number}"
            _ip("link", "add", outer, "type", "veth", "peer", "name", inner, "netns", name)
            _ip("addr", "add", f"{net}.1/30", "dev", outer)
            _ip("link", "set", outer, "up")
            _ip("-n", name, "addr", "add", f"{net}.2/30", "dev", inner)
            _ip("-n", name, "link", "set", inner, "up")
            links.append(Link(name, inner, f"{net}.1", f"{net}.2"))
        yield Network(links)
    finally:
        for number in range(len(links)):
            _ip("link", "del", f"ch{os.getpid()}-{number}")
        _ip("netns", "del", name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)  # noqa: S607 -- wherever iproute2 is
