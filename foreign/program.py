"""A program of somebody else's as a process beside this one."""

import contextlib
import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def running(name: str, command: Sequence[str], config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A program that serves during the block; gives what it says once it does, one line of JSON.

    Its last argument is a file with its configuration. Raises RuntimeError, with what it said, when it does not start.
    """
    with tempfile.TemporaryDirectory() as folder:
        file, log = Path(folder, "config.json"), Path(folder, "log")
        file.write_text(json.dumps(config))
        with log.open("w") as complaints:
            process = subprocess.Popen([*command, str(file)], stdout=subprocess.PIPE, stderr=complaints, text=True)  # noqa: S603
        assert process.stdout is not None  # noqa: S101 -- a pipe
        try:
            said = process.stdout.readline()
            if not said:
                raise RuntimeError(f"{name} does not start: {log.read_text()[-2000:]}")
            yield json.loads(said)
        finally:
            process.terminate()
            process.wait()
            process.stdout.close()
