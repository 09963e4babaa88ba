"""The logs of a running system: where each is, and what one ends with."""

import re
import shutil
import time
from pathlib import Path


class Logs:
    """The folder where `dapr run` puts its logs, `<app-id>_app_<time>.log` and `<app-id>_daprd_<time>.log`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def new(self, name: str) -> Path:
        """The path of a log that begins now."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder / f"{name}_{time.strftime('%Y%m%d%H%M%S')}.log"

    def newest(self, app_id: str, kind: str) -> Path | None:
        """The latest log of an app (`kind` "app") or its sidecar ("daprd"); None before its first start."""
        return max(self._folder.glob(f"{app_id}_{kind}_*.log"), key=lambda path: path.name, default=None)

    def put_aside(self) -> None:
        """Moves the logs of the last run to `previous`, so that what lies in the folder is of this one."""
        previous = self._folder / "previous"
        shutil.rmtree(previous, ignore_errors=True)
        previous.mkdir(parents=True)
        for path in self._folder.glob("*.log"):
            path.rename(previous / path.name)


def read(log: Path) -> str:
    """What is in a log by now; nothing, before it is there."""
    return log.read_text("utf-8", "replace") if log.exists() else ""


def said(log: Path) -> bool:
    """Whether an app has said anything in its log, where `dapr run` writes too."""
    return "== APP - " in read(log)


def ends(log: Path, lines: int = 12) -> str:
    """What a log ends with: its last lines; of a program of Dapr those that tell of an error, when there are any."""
    clean = re.sub(r"\x1b\[[0-9;]*m|^== APP - \S+ == ", "", read(log), flags=re.MULTILINE)
    errors = re.findall(r'level=(?:error|fatal) msg="((?:[^"\\]|\\.)*)"', clean)
    last = (errors or clean.strip().splitlines())[-lines:] or ["(nothing)"]
    return f"{log} ends with:\n" + "\n".join(f"  {line}" for line in last)
