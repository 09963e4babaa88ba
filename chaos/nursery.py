"""Replicas as forks of one process that has imported everything: a restart costs a tenth of a second, not three.

`python -m chaos.nursery` reads what to start from its input, a JSON line each, and answers with the process's id. What
it has started goes with it.
"""

import atexit
import functools
import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import psutil

from chaos.servers import ROOT, Server


@dataclass
class Nursed(Server):
    """A replica, whose `command` are the arguments of `chaos.replica`."""

    log: Path = field(kw_only=True)

    def _spawn(self) -> psutil.Process:
        return psutil.Process(_nursery().fork(self.command, self.log))


class _Nursery:
    def __init__(self) -> None:
        command = [sys.executable, "-m", "chaos.nursery"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        atexit.register(self._process.communicate)

    def fork(self, arguments: list[str], log: Path) -> int:
        orders, answers = self._process.stdin, self._process.stdout
        assert orders is not None  # noqa: S101 -- pipes
        assert answers is not None  # noqa: S101
        orders.write(json.dumps([arguments, str(log)]) + "\n")
        orders.flush()
        return int(answers.readline())


@functools.cache
def _nursery() -> _Nursery:
    return _Nursery()


def _main() -> None:
    from chaos import replica

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the dead are buried at once
    while order := sys.stdin.readline():
        arguments, log = json.loads(order)
        child = os.fork()
        if not child:
            _become(replica.main, arguments, log)
        print(child, flush=True)
    for own in psutil.Process().children():
        own.kill()


def _become(main: Callable[[list[str]], None], arguments: list[str], log: str) -> NoReturn:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    nothing, output = os.open(os.devnull, os.O_RDONLY), os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    try:
        main(arguments)
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        sys.stderr.flush()
        os._exit(0)


if __name__ == "__main__":
    _main()
