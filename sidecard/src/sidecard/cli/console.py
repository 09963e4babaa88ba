"""What the command line prints: phases with their times and one-line failures; with `--json`, one object instead."""

import contextlib
import json
import sys
import time
from collections.abc import Iterator

from rich.console import Console as RichConsole
from rich.markup import escape


def at_terminal() -> bool:
    """Whether there is a person who can be asked."""
    return sys.stdin.isatty()


class Console:
    """Prints for people, or stays silent and leaves the printing to `result` (`--json`).

    With `as_json` standard output is one JSON object and nothing else.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.phases: dict[str, float] = {}
        self._rich = RichConsole(stderr=as_json, quiet=quiet or as_json, highlight=False, soft_wrap=True)

    @property
    def width(self) -> int:
        """Characters of a line that people see whole: their terminal's, at least 80; 120 where there is none."""
        return max(80, self._rich.width) if self._rich.is_terminal else 120

    def line(self, text: str) -> None:
        """One line for people; rich markup is read."""
        self._rich.print(text)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Names a phase and prints how many seconds it took, also when it failed."""
        began = time.monotonic()
        mark = "[red]✗[/red]"
        try:
            with self._rich.status(escape(name)):
                yield
            mark = "[green]✓[/green]"
        finally:
            self.done(name, time.monotonic() - began, mark)

    def done(self, name: str, seconds: float, mark: str = "[green]✓[/green]") -> None:
        """A phase that was timed elsewhere."""
        self.phases[name] = round(seconds, 2)
        self.timed(name, seconds, mark)

    def timed(self, name: str, seconds: float, mark: str = " ") -> None:
        """One step of a phase, with when it was reached."""
        self._rich.print(f"{mark} {escape(name):<44}[dim]{seconds:6.1f} s[/dim]")

    def result(self, **values: object) -> None:
        """The outcome for programs: one JSON object, printed only with `--json`."""
        if self.as_json:
            print(json.dumps(values, default=str))

    def failure(self, error: BaseException | str) -> None:
        """What went wrong and what to do, without a traceback."""
        if self.as_json:
            print(json.dumps({"ok": False, "error": str(error)}))
        else:
            RichConsole(stderr=True, highlight=False, soft_wrap=True).print(f"[red]{escape(str(error))}[/red]")
