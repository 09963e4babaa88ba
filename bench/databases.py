"""Other state stores for our side: PostgreSQL and Redis as they must be set for tasks, gone after the run."""

import contextlib
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from bench.processes import free_ports, running


class NotInstalled(Exception):
    """A database's programs are not on this machine."""


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[dict[str, str]]:
    """Redis with every write on disk before its answer, nothing evicted; gives the state component's settings."""
    [port] = free_ports(1)
    folder.mkdir()
    options = f"--port {port} --bind 127.0.0.1 --dir {folder} --save --appendonly yes --appendfsync always"
    quiet = "--maxmemory-policy noeviction --loglevel warning"
    with running([_program("redis-server"), *options.split(), *quiet.split()], port):
        yield {"type": "state.redis", "version": "v1", "redisHost": f"127.0.0.1:{port}", "redisPassword": ""}


@contextlib.contextmanager
def postgresql(folder: Path) -> Iterator[dict[str, str]]:
    """PostgreSQL; gives the state component's settings. As root it runs as its package's user: it refuses root."""
    [port] = free_ports(1)
    folder.mkdir()
    user = "postgres" if os.geteuid() == 0 else ""
    if user:
        owner = pwd.getpwnam(user)
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        folder.parent.chmod(0o755)
    data = folder / "data"
    make = [_program("initdb"), "-D", str(data), "-U", "sidecard", "--auth=trust", "--no-sync"]
    subprocess.run(make, user=user or None, check=True, capture_output=True, cwd="/")
    listen = [
        "-c",
        "listen_addresses=127.0.0.1",
        "-c",
        f"unix_socket_directories={folder}",
        "-c",
        "log_min_messages=fatal",
    ]
    with running([_program("postgres"), "-D", str(data), "-p", str(port), *listen], port, user=user):
        connection = f"host=127.0.0.1 port={port} user=sidecard database=postgres sslmode=disable"
        yield {"type": "state.postgresql", "version": "v2", "connectionString": connection}


def _program(name: str) -> str:
    debian = map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = shutil.which(name) or next(debian, None)
    if found is None:
        raise NotInstalled(f"{name} is missing: install redis-server and postgresql to have them measured")
    return found
