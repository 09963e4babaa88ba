"""The system on a laptop, with real sentry and sidecars around two tiny apps."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from sidecard.cli.project import Project
from sidecard.cli.system import System
from sidecard.errors import ConfigurationError

pytestmark = pytest.mark.skipif(
    not (Path(__file__).parents[3] / "runtime/bin/daprd").exists(), reason="Dapr is not built: `make runtime`"
)

SENTRY_PORTS = (51001, 8399)


@pytest.fixture(scope="module")
def running(new_project: Callable[[Path], Project], tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system that is up for the whole module."""
    system = System(new_project(tmp_path_factory.mktemp("desk") / "desk"), sentry_ports=SENTRY_PORTS)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OTEL_RESOURCE_ATTRIBUTES", "handed=down")
        environment.setenv("PYTHONDONTWRITEBYTECODE", "1")
        system.up()
    with system:
        yield system


@pytest.fixture(scope="module")
def stopped(running: System) -> None:
    """Makes room on the ports: from here on each test starts what it needs."""
    running.down()


def _listening(ports: set[int]) -> dict[int, str]:
    found = [c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.laddr.port in ports]
    return {c.laddr.port: c.laddr.ip for c in found}


def _ports(project: Project) -> set[int]:
    return {port for app in project.apps for port in app.ports}


def _invoke(system: System, path: str) -> httpx.Response:
    tokens = (system.project.local / "tokens" / "stub-desk.env").read_text()
    token = re.findall("DAPR_API_TOKEN=(.*)", tokens)[0]
    url = f"http://127.0.0.1:3590/v1.0/invoke/stub-agent/method/{path}"
    return httpx.get(url, headers={"dapr-api-token": token}, timeout=20)


def test_all_are_healthy(running: System) -> None:
    """After `up` every app and sidecar answers."""
    assert running.healthy() == {"stub-agent": True, "stub-tool": True, "stub-desk": True}


def test_sources_are_compiled_once(running: System) -> None:
    """And not by each app at each start, also where Python is told to keep no bytecode."""
    assert list((running.project.root / "agents" / "tool" / "__pycache__").glob("__main__.*.pyc"))


def test_second_up_does_nothing(running: System) -> None:
    """What is up stays as it is."""
    pid = httpx.get("http://127.0.0.1:8191/readyz").json()["pid"]
    assert set(running.up().values()) == {0.0}
    assert httpx.get("http://127.0.0.1:8191/readyz").json()["pid"] == pid


def test_nothing_listens_outside(running: System) -> None:
    """Every port of apps, sidecars and sentry is on 127.0.0.1."""
    grpc_of_a_stub = {8291}
    ports = _ports(running.project) - grpc_of_a_stub | {SENTRY_PORTS[0]}
    assert _listening(ports) == dict.fromkeys(ports, "127.0.0.1")


def test_listed_path_only(running: System) -> None:
    """Over mTLS the caller reaches the path that the access rules list, and no other."""
    assert _invoke(running, "open").json()["APP_ID"] == "stub-agent"
    refused = _invoke(running, "closed")
    assert refused.status_code == 403
    assert "spiffe://public/ns/default/stub-desk" in refused.text


def test_no_token_no_entry(running: System) -> None:
    """A sidecar serves nobody who lacks its app's token."""
    assert httpx.get("http://127.0.0.1:3590/v1.0/invoke/stub-agent/method/open").status_code == 401


def test_restart_gives_the_same_environment(running: System) -> None:
    """An app started anew is another process with the environment that `dapr run` gave the first; its sidecar stays."""
    own = {"PWD", "OLDPWD", "SHLVL", "_"}
    before = _invoke(running, "open").json()
    pid = httpx.get("http://127.0.0.1:8191/readyz").json()["pid"]
    assert running.kill("stub-agent") == 1
    assert not running.healthy()["stub-agent"]
    running.restart("stub-agent")
    after = _invoke(running, "open").json()
    assert httpx.get("http://127.0.0.1:8191/readyz").json()["pid"] != pid
    assert {k: v for k, v in after.items() if k not in own} == {k: v for k, v in before.items() if k not in own}
    assert after["OTEL_RESOURCE_ATTRIBUTES"] == "handed=down"
    assert after["SIDECARD_GRPC_PORT"] == "8291"


def test_restart_of_a_running_app(running: System) -> None:
    """A running app is stopped first; its log says what the new one does."""
    pid = httpx.get("http://127.0.0.1:8192/healthz").json()["pid"]
    running.restart("stub-tool")
    assert httpx.get("http://127.0.0.1:8192/healthz").json()["pid"] != pid
    assert not psutil.pid_exists(int(pid))


def test_restart_of_a_broken_app(running: System) -> None:
    """An app that can't start is reported at once with its last words, and starts when it is mended."""
    module = running.project.root / "agents" / "tool" / "__main__.py"
    source = module.read_text()
    module.write_text("raise SystemExit('no such vendor file')")
    with pytest.raises(ConfigurationError, match=r"stub-tool died at start(.|\n)*no such vendor file"):
        running.restart("stub-tool")
    module.write_text(source)
    running.restart("stub-tool")


def test_restart_without_an_app(running: System) -> None:
    """A sidecar alone has nothing to start anew."""
    with pytest.raises(ConfigurationError, match="a sidecar without an app"):
        running.restart("stub-desk")


def test_taken_ports_are_named(running: System, new_project: Callable[[Path], Project], tmp_path: Path) -> None:
    """A second checkout with the same ports learns who holds them, and touches nothing."""
    other = System(new_project(tmp_path / "other"), sentry_ports=(51002, 8398))
    with pytest.raises(ConfigurationError, match=r"port \d+, which .* needs, is taken by process \d+ \("):
        other.up()
    assert other.down() == 0
    assert all(running.healthy().values())


def test_down_after_the_parent_died(project: Project, stopped: None) -> None:
    """Whoever started it may be gone: `down` finds every process, and up again starts cleanly."""
    up = subprocess.Popen([sys.executable, "-c", _up_command(project)], cwd=project.root)
    system = System(project, sentry_ports=SENTRY_PORTS)
    _await(lambda: len(_listening(_ports(project))) > 4)
    up.kill()
    up.wait()
    assert system.down() >= 3
    assert _listening(_ports(project) | set(SENTRY_PORTS)) == {}
    assert system.down() == 0


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_up(project: Project, stopped: None, sig: signal.Signals) -> None:
    """Ctrl-C while it starts stops what has started."""
    never_ready = "import time; time.sleep(600)"
    (project.root / "agents" / "agent" / "__main__.py").write_text(never_ready)
    up = subprocess.Popen([sys.executable, "-c", _up_command(project)], cwd=project.root)
    _await(lambda: len(_listening(_ports(project))) > 2)
    up.send_signal(sig)
    assert up.wait(20) == 130
    assert _listening(_ports(project) | set(SENTRY_PORTS)) == {}


def test_dead_app_at_start(project: Project, stopped: None) -> None:
    """An app that dies is reported within seconds with the end of its log, and everything else is stopped."""
    (project.root / "agents" / "agent" / "__main__.py").write_text("import no_such_package")
    began = time.monotonic()
    with pytest.raises(ConfigurationError, match=r"the app stub-agent died(.|\n)*No module named 'no_such_package'"):
        System(project, sentry_ports=SENTRY_PORTS).up()
    assert time.monotonic() - began < 15
    assert _listening(_ports(project) | set(SENTRY_PORTS)) == {}


def test_dead_app_whose_words_were_lost(project: Project, stopped: None) -> None:
    """Dapr's CLI does not always write what an app says as it dies: it is asked once more."""
    (project.root / "agents" / "agent" / "__main__.py").write_text(
        "from pathlib import Path\n\n"
        "if not (died := Path('died')).exists():\n    died.touch()\n    raise SystemExit(1)\nimport no_such_package\n"
    )
    with pytest.raises(ConfigurationError, match=r"the app stub-agent died(.|\n)*No module named 'no_such_package'"):
        System(project, sentry_ports=SENTRY_PORTS).up()
    assert _listening(_ports(project) | set(SENTRY_PORTS)) == {}


def test_sidecar_that_cannot_start(project: Project, stopped: None) -> None:
    """A component that daprd refuses is reported in daprd's own words."""
    path = project.root / "components" / "state.yaml"
    everywhere = path.read_text().replace("state.sqlite", "state.nosuch").partition("scopes:")[0]
    path.write_text(everywhere)
    with pytest.raises(ConfigurationError, match=r"the sidecar of stub-agent died(.|\n)*state\.nosuch"):
        System(project, sentry_ports=SENTRY_PORTS).up()


def test_port_of_a_stranger(project: Project) -> None:
    """Sentry's port is looked at before anything starts."""
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        system = System(project, sentry_ports=(port, 8397))
        with pytest.raises(
            ConfigurationError, match=f"port {port}, which sentry needs, is taken by process {os.getpid()}"
        ):
            system.start_sentry()


def _up_command(project: Project) -> str:
    return f"""
import sidecard.cli, sidecard.cli.system as system, sys
class Here(system.System):
    def __init__(self, *given, **named): super().__init__(*given, **named, sentry_ports={SENTRY_PORTS})
system.System = Here
sys.argv = ["sidecard", "up", "--json"]
sidecard.cli.main()
"""


def _await(condition: object, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.05)
