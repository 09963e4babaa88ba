"""The system on a laptop: sentry, and what dapr.yaml names, started, watched, restarted and stopped as one thing."""

import compileall
import contextlib
import fcntl
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import httpx
import psutil

import sidecard
from sidecard.cli import bootstrap, processes, runtime
from sidecard.cli.console import Console
from sidecard.cli.program_logs import Logs, ends, read, said
from sidecard.cli.project import App, Project
from sidecard.errors import ConfigurationError
from sidecard.loopback import NO_CERTIFICATES

_LOOK = 0.15
_HEARING = 5.0
_DEATHS = {
    "app": re.compile(r"The App process exited with error code: (.*)|(Exited App successfully)"),
    "daprd": re.compile(r"The daprd process exited with error code: (.*)|(Exited Dapr successfully)"),
}


class System:
    """Everything that one checkout runs. As a context manager it is up inside, and gone afterwards, whatever happened.

    Processes are known by a mark in their environment, so `down` finds them from any later process, also when what
    started them was killed. `sentry_ports` are those of sentry and of its health: another pair lets a second project,
    with other app-ids and ports, run beside the first. One `up`, `down` or `restart` works at a time; errors are
    ConfigurationError.
    """

    def __init__(
        self,
        project: Project | Path | str = ".",
        *,
        console: Console | None = None,
        sentry_ports: tuple[int, int] = (50001, 8390),
    ) -> None:
        self.project = project if isinstance(project, Project) else Project(project)
        self.console = console or Console(quiet=True)
        self.sentry_ports = sentry_ports
        self._logs = Logs(self.project.logs)
        self._sentry_health = f"http://127.0.0.1:{sentry_ports[1]}/healthz"

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    # --- up ---

    def up(self, *, timeout: float = 90) -> dict[str, float]:
        """Starts everything and returns when every app is healthy: seconds from the start of `dapr run`, by app-id.

        Does nothing when all is healthy already. What an earlier run left behind is stopped first. A taken port, an app
        or sidecar that dies, or one not healthy after `timeout` seconds raises ConfigurationError naming it, with the
        last lines of its log; then, as on Ctrl-C, what was started is stopped.
        """
        with self._lock():
            with self.console.phase("Dapr programs"):
                programs = runtime.ensure(self.project, self.console)
            with self.console.phase("keys and tokens"):
                bootstrap.ensure(self.project)
            if self._processes():
                if not self._unhealthy(self.project.apps):
                    self.console.line("everything is up already")
                    return {app.app_id: 0.0 for app in self.project.apps}
                with self.console.phase("stop what an earlier run left"):
                    self._stop()
            processes.refuse_taken({port: what for app in self.project.apps for port, what in app.ports.items()})
            self._logs.put_aside()
            self._compile()
            try:
                self._ensure_sentry(programs["sentry"])
                return self._start_apps(programs["dapr"], timeout)
            except BaseException:
                with self.console.phase("stop what was started"):
                    self._stop()
                raise

    def start_sentry(self) -> None:
        """Starts sentry alone, for `dapr run -f .` by hand; returns when it serves. Nothing happens when it runs."""
        with self._lock():
            bootstrap.ensure(self.project)
            self._ensure_sentry(runtime.ensure(self.project, self.console)["sentry"])

    def _ensure_sentry(self, program: Path) -> None:
        if self._sentry():
            return
        processes.refuse_taken({self.sentry_ports[0]: "sentry", self.sentry_ports[1]: "sentry (health)"})
        with self.console.phase("sentry"):
            self._start_sentry(program)
        bootstrap.write_compose_env(self.project)

    def _start_sentry(self, program: Path) -> None:
        folder = self.project.local / "sentry"
        log = self._logs.new("sentry")
        port, health = self.sentry_ports
        # sentry 1.18 reads the addresses for health and metrics, but listens everywhere: so no metrics. Health can't be
        # turned off; it says no more than "ok".
        listen = ["--listen-address=127.0.0.1", f"--port={port}", f"--healthz-port={health}", "--enable-metrics=false"]
        credentials = [f"--issuer-credentials={folder}", f"--config={folder / 'config.yaml'}"]
        started = self._spawn([str(program), *credentials, *listen], log, dict(os.environ))
        (folder / "pid").write_text(str(started.pid))  # the sidecars' wrapper looks here
        deadline = time.monotonic() + 20
        while not (_answers(self._sentry_health) and (folder / "ca.crt").exists()):
            if started.poll() is not None or time.monotonic() > deadline:
                started.kill()
                raise ConfigurationError(f"sentry did not start; {ends(log)}")
            time.sleep(_LOOK)

    def _start_apps(self, cli: Path, timeout: float) -> dict[str, float]:
        began = time.monotonic()
        log = self._logs.new("dapr_run")
        run = self._spawn([str(cli), "run", "-f", "."], log, dict(os.environ))
        ready: dict[str, float] = {}
        waiting = list(self.project.apps)
        while waiting:
            waiting = self._unhealthy(waiting)
            for app in self.project.apps:
                if app not in waiting and app.app_id not in ready:
                    ready[app.app_id] = round(time.monotonic() - began, 2)
                    self.console.timed(f"  {app.app_id}", ready[app.app_id])
            self._raise_if_dead(waiting)
            if run.poll() is not None:
                raise ConfigurationError(f"`dapr run -f .` ended early; {ends(log)}")
            if waiting and time.monotonic() - began > timeout:
                raise ConfigurationError(self._late(waiting[0], timeout))
            time.sleep(_LOOK if waiting else 0)
        self.console.done("all apps and their sidecars", time.monotonic() - began)
        return ready

    def _raise_if_dead(self, waiting: Sequence[App]) -> None:
        for app in waiting:
            for kind, death in _DEATHS.items():
                log = self._logs.newest(app.app_id, kind)
                if log and (found := death.search(read(log))):
                    if kind == "app" and not said(log):
                        self._hear(app, log)
                    who = f"the app {app.app_id}" if kind == "app" else f"the sidecar of {app.app_id}"
                    how = found[1] or "it ended by itself"
                    raise ConfigurationError(f"{who} died at start ({how}); {ends(log)}")

    def _hear(self, app: App, log: Path) -> None:
        """Starts an app that died without a word once more: `dapr run` may lose what one says as it dies."""
        again = self._spawn(app.command, log, {**self._run_environment(), **app.environment})
        with contextlib.suppress(subprocess.TimeoutExpired):
            again.wait(_HEARING)

    def _late(self, app: App, timeout: float) -> str:
        silent = next((url for url in app.health_urls if not _answers(url)), app.health_urls[0])
        kind = "daprd" if "/v1.0/" in silent else "app"
        log = self._logs.newest(app.app_id, kind)
        text = f"{app.app_id} was not healthy within {timeout:.0f} s ({silent} does not answer 2xx)"
        text += "; `sidecard check` says what it may lack"
        return f"{text}; {ends(log)}" if log else text

    # --- down, restart, kill ---

    def down(self) -> int:
        """Stops everything that was started from this checkout and only that; returns how many processes that were.

        Apps first, while their sidecars still serve them; SIGTERM, then SIGKILL. Raises ConfigurationError when one of
        the ports is still held afterwards, naming the process.
        """
        with self._lock():
            return self._stop()

    def restart(self, app_id: str, *, timeout: float = 60) -> float:
        """Starts one app anew as `dapr run` would, beside its running sidecar; returns seconds until it was healthy."""
        app = self.project.app(app_id)
        if not app.command:
            raise ConfigurationError(f"{app_id} is a sidecar without an app: there is nothing to start anew")
        with self._lock():
            if not _answers(app.health_urls[-1]):
                raise ConfigurationError(f"the sidecar of {app_id} does not run: `make up` starts everything")
            base = self._run_environment()
            processes.terminate(self._app_processes(app), grace=5)
            processes.refuse_taken({p: what for p, what in app.ports.items() if p in (app.app_port, app.grpc_port)})
            began = time.monotonic()
            log = self._logs.new(f"{app_id}_app")
            started = self._spawn(app.command, log, {**base, **app.environment})
            while self._unhealthy([app]):
                if started.poll() is not None:
                    raise ConfigurationError(f"{app_id} died at start; {ends(log)}")
                if time.monotonic() - began > timeout:
                    raise ConfigurationError(self._late(app, timeout))
                time.sleep(_LOOK)
            return round(time.monotonic() - began, 2)

    def kill(self, app_id: str, sig: signal.Signals = signal.SIGKILL) -> int:
        """Kills one app's process, as a crash would, and returns how many processes it hit. Its sidecar stays."""
        victims = self._app_processes(self.project.app(app_id))
        for process in victims:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(sig)
        processes.wait(victims, timeout=5)
        return len(victims)

    def healthy(self) -> dict[str, bool]:
        """Whether each app and its sidecar answer now, by app-id."""
        unhealthy = {app.app_id for app in self._unhealthy(self.project.apps)}
        return {app.app_id: app.app_id not in unhealthy for app in self.project.apps}

    def _stop(self) -> int:
        found = self._processes()
        for process in found:  # the CLI must not start the next app while this one is being stopped
            with contextlib.suppress(psutil.Error):
                if processes.role(process) == "control" and "run" in process.cmdline():
                    process.suspend()
        found = self._processes()
        by_role: dict[str, list[psutil.Process]] = {"app": [], "sidecar": [], "control": []}
        for process in found:
            by_role[processes.role(process)].append(process)
        # Sentry and the CLI (which would kill its children at once) go last; they have nothing to finish then.
        for group, grace in (("app", 4.0), ("sidecar", 6.0), ("control", 0.0)):
            processes.terminate(by_role[group], grace)
        if left := self._processes():  # started by one of them meanwhile
            processes.terminate(left, grace=1)
        (self.project.local / "sentry" / "pid").unlink(missing_ok=True)
        if found:
            ports = {port for app in self.project.apps for port in app.ports} | set(self.sentry_ports)
            processes.await_free(ports)
        return len(found)

    # --- what is there ---

    def _processes(self) -> list[psutil.Process]:
        return processes.marked(self.project.mark)

    def _app_processes(self, app: App) -> list[psutil.Process]:
        """The app's own processes, whether `sidecard` started them or a `dapr run` typed by hand in this project."""
        return [
            process
            for process in psutil.process_iter()
            if (environment := processes.environment(process)).get("APP_ID") == app.app_id
            and environment.get("APP_PORT") == str(app.app_port)
            and (environment.get(processes.MARK) == self.project.mark or processes.folder(process) == self.project.root)
            and not processes.is_sidecar(process)
            and process.pid != os.getpid()
        ]

    def _sentry(self) -> psutil.Process | None:
        pid_file = self.project.local / "sentry" / "pid"
        with contextlib.suppress(OSError, ValueError, psutil.Error):
            process = psutil.Process(int(pid_file.read_text()))
            if processes.environment(process).get(processes.MARK) == self.project.mark and process.is_running():
                return process if _answers(self._sentry_health) else None
        return None

    def _run_environment(self) -> dict[str, str]:
        """What the running system was started with, so that an app started anew sends its traces to the same place."""
        for process in self._processes():
            environment = processes.environment(process)
            if processes.role(process) == "control" and "run" in process.cmdline():
                return environment
        return dict(os.environ)

    def _unhealthy(self, apps: Sequence[App]) -> list[App]:
        return [app for app in apps if not all(_answers(url) for url in app.health_urls)]

    # --- starting ---

    def _compile(self) -> None:
        """Makes bytecode of our own sources, as an install does of a package's: else each app would, side by side.

        At every start, where the environment tells Python to keep none.
        """
        for sources in (Path(sidecard.__file__).parent, self.project.root / "agents"):
            compileall.compile_dir(sources, quiet=2)

    def _spawn(self, command: Sequence[str], log: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        """Starts a process that outlives this one, in a session of its own, carrying the mark."""
        environment[processes.MARK] = self.project.mark
        environment["SIDECARD_SENTRY_PORT"] = str(self.sentry_ports[0])
        with log.open("ab") as output:
            return subprocess.Popen(
                command, cwd=self.project.root, env=environment, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip

    @contextlib.contextmanager
    def _lock(self) -> Iterator[IO[Any]]:
        _ = self.project.apps  # outside a project nothing is made
        self.project.local.mkdir(mode=0o700, parents=True, exist_ok=True)
        with (self.project.local / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.console.line("waiting for another `sidecard` command in this project to finish")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield lock


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2, trust_env=False, verify=NO_CERTIFICATES).is_success
    except httpx.HTTPError:
        return False
