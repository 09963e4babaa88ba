"""What every proof plays on: the running desk, the parties of other firms, and a terminal that shows what happened."""

import asyncio
import sys
from dataclasses import dataclass, field

from a2a.types import Task, TaskState
from rich.console import Console
from rich.text import Text

from demo.collector import Collector
from foreign.openid import Provider
from foreign.parties import Railways
from sidecard.cli.client import AgentClient
from sidecard.cli.message import Content
from sidecard.cli.project import Project
from sidecard.cli.system import System
from sidecard.tasks.binding import text_of
from sidecard.tasks.states import state_name
from tour.desk import GUIDE
from tour.impostor import Impostor

COMMAND_SECONDS = 60


class ProofFailed(Exception):
    """Something else happened than the proof says; the message says what."""


@dataclass
class Stage:
    """The running desk in `project`, and who is around it. `trace` and `parents` are of the handshake's trace."""

    project: Project
    system: System
    openid: Provider
    railways: Railways
    impostor: Impostor
    collector: Collector
    out: Console
    trace: str = ""
    parents: list[str] = field(default_factory=list)

    def tell(self, title: str, text: str, style: str = "cyan") -> None:
        """A line: what it is about, and what happened."""
        line = Text()
        line.append(f"{title:<13}", f"bold {style}")
        line.append(f" {text}")
        self.out.print(line)

    async def command(self, *words: str, fails: bool = False, only: tuple[str, ...] = (), without: str = "") -> str:
        """Run `sidecard` with these words as a user of the project does, show and return what it prints.

        Of its lines only those are shown that have one of the words in `only`, and none that has `without`. Raises
        ProofFailed when it fails, or when it does not where it should.
        """
        self.out.print(Text(f"$ sidecard {' '.join(words)}", "bold"))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "sidecard.cli", *words, cwd=self.project.root, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        said = output.decode()
        for line in said.splitlines():
            if (not only or any(word in line for word in only)) and not (without and without in line):
                style = "red" if fails else ""
                self.out.print(
                    Text(f"  {line}", style), no_wrap=not fails, overflow="ellipsis" if not fails else "fold"
                )
        if bool(process.returncode) is not fails:
            raise ProofFailed(f"`sidecard {words[0]}` ended with {process.returncode}: {said[-1_000:]}")
        return said

    async def ask(self, text: str = "", *, state: "TaskState", **content: object) -> Task:
        """Have the guide do something for the desk's user; its task, which must come to rest in this state."""
        said: Content = content  # type: ignore[assignment]
        async with AgentClient.through_desk(self.project, GUIDE) as desk:
            task = await desk.send(text, **said)
        reached(task, state)
        return task


def reached(task: Task, state: "TaskState") -> None:
    """Raises ProofFailed unless the task is in this state."""
    if task.status.state != state:
        raise ProofFailed(
            f"the task is {state_name(task.status.state)}, not {state_name(state)}: {text_of(task.status.message)}"
        )


def expect(holds: object, what: str) -> None:
    """Raises ProofFailed, saying what does not hold."""
    if not holds:
        raise ProofFailed(f"it does not hold that {what}")
