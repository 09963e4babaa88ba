"""The processes started from one checkout: known by a mark in their environment, so that none is missed or mistaken."""

import contextlib
import os
import socket
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil

from sidecard.errors import ConfigurationError

MARK = "SIDECARD_SYSTEM"
"""Environment variable that every process started from a checkout carries; its value is `Project.mark`."""


def environment(process: psutil.Process) -> dict[str, str]:
    """The environment a process was started with; empty when it is gone or not ours to read."""
    with contextlib.suppress(psutil.Error, OSError):
        return process.environ()
    return {}


def marked(mark: str) -> list[psutil.Process]:
    """Every living process that carries the mark, but for this one and those it runs in."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [p for p in psutil.process_iter() if p.pid not in own and environment(p).get(MARK) == mark]


def folder(process: psutil.Process) -> Path | None:
    """Its working directory; None when it is gone or not ours to read."""
    with contextlib.suppress(psutil.Error):
        return Path(process.cwd())
    return None


def is_sidecar(process: psutil.Process) -> bool:
    """Whether it is a daprd (or the wrapper that is about to become one)."""
    with contextlib.suppress(psutil.Error):
        return "--dapr-http-port" in process.cmdline()
    return False


def role(process: psutil.Process) -> str:
    """What a process of the system does: "app", "sidecar", or "control" (the Dapr CLI, sentry)."""
    if is_sidecar(process):
        return "sidecar"
    return "app" if "APP_ID" in environment(process) else "control"


def terminate(processes: Iterable[psutil.Process], grace: float) -> None:
    """SIGTERM, then SIGKILL for what is left after `grace` seconds. Returns when all are gone."""
    alive = list(processes)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    alive = wait(alive, grace)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    wait(alive, 5)


def wait(processes: Iterable[psutil.Process], timeout: float) -> list[psutil.Process]:
    """Waits until these have ended and returns those that have not after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    alive = [process for process in processes if _lives(process)]
    while alive and time.monotonic() < deadline:
        time.sleep(0.03)
        alive = [process for process in alive if _lives(process)]
    return alive


def _lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(0)  # takes leave of a child of ours
        # One that ended but that its parent has not asked after (a container's init is slow at it) holds nothing.
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def holders(ports: Iterable[int]) -> dict[int, str]:
    """The ports of these that something listens on, each with who does, for people to read."""
    wanted = set(ports)
    try:
        listening = {c.laddr.port: c.pid for c in psutil.net_connections("tcp") if c.laddr and c.status == "LISTEN"}
    except psutil.AccessDenied:  # macOS tells only root: find out by trying
        return {port: "some process" for port in wanted if not _is_free(port)}
    return {port: _describe(pid) for port, pid in listening.items() if port in wanted}


def refuse_taken(ports: Mapping[int, str]) -> None:
    """Raises ConfigurationError, naming the process, when something listens on a port; `ports` says what needs it."""
    if held := _still_held(ports, timeout=2):
        port = min(held)
        raise ConfigurationError(
            f"port {port}, which {ports[port]} needs, is taken by {held[port]}: "
            "stop it (a `dapr run` in another terminal? another checkout's `make up`?) and try again"
        )


def await_free(ports: Iterable[int]) -> None:
    """Returns when nothing listens on the ports any more. Raises ConfigurationError, naming who still does."""
    if held := _still_held(ports, timeout=3):
        still = "; ".join(f"port {port} is held by {who}" for port, who in sorted(held.items()))
        raise ConfigurationError(f"stopped, but {still}")


def _still_held(ports: Iterable[int], timeout: float) -> dict[int, str]:
    """`holders` after `timeout` seconds, or none as soon as all are free.

    A process of several threads counts as ended (a zombie) when its first thread has: until the last one has, the
    kernel keeps its ports, and names nobody as their holder.
    """
    wanted = set(ports)
    deadline = time.monotonic() + timeout
    while (held := holders(wanted)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return held


def _describe(pid: int | None) -> str:
    if pid is None:
        return "a process of another user"
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        return f"process {pid} ({' '.join(process.cmdline())[:80] or process.name()})"
    return f"process {pid}"


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
