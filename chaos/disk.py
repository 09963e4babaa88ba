"""A small disk that can be filled: needs root on Linux."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sidecard.errors import ConfigurationError

SIZE = 16_000_000
BLOCK = 65_536


@dataclass(frozen=True)
class Disk:
    """A file system of SIZE bytes at `folder`."""

    folder: Path

    def fill(self) -> None:
        """Leave no byte free."""
        with contextlib.suppress(OSError), (self.folder / "ballast").open("wb", buffering=0) as file:
            while file.write(bytes(BLOCK)):
                pass

    def empty(self) -> None:
        """Give back what `fill` took."""
        (self.folder / "ballast").unlink(missing_ok=True)


def missing() -> str:
    """Why there can be no such disk here, or ""."""
    return "a disk that is full needs a small file system: run as root on Linux" if os.geteuid() else ""


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Disk]:
    """A disk at that folder. Raises ConfigurationError where none can be mounted."""
    folder.mkdir()
    try:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
        subprocess.run(mount, check=True, capture_output=True)
    except (subprocess.CalledProcessError, OSError) as error:
        raise ConfigurationError(f"{missing() or 'no disk can be mounted here'}: {error}") from error
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)  # noqa: S607 -- Linux's
