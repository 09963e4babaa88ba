"""dapr.yaml against the folders of agents/."""

from collections.abc import Iterator

from sidecard.check.estate import App, Estate, dig
from sidecard.check.finding import Finding

FILE = "dapr.yaml"
PORTS = ("appPort", "daprHTTPPort", "daprGRPCPort", "daprInternalGRPCPort", "metricsPort")


def check(estate: Estate) -> Iterator[Finding]:
    """Every app runs under its own id, on ports of its own, with its own access rules."""
    for app in estate.apps.values():
        if app.run:
            yield from _entry(app)
        else:
            yield Finding(
                FILE, f"has no app {app.name!r}, but agents/{app.name} exists", "add an entry with this appID"
            )
    for app_id, run in estate.run_file.items():
        if run.get("command") and app_id not in estate.apps:
            yield Finding(FILE, f"app {app_id!r} has no folder agents/{app_id}", "name the appID as the folder")
        expected = f"components/access/{app_id}.yaml"
        if run.get("configFilePath") != expected:
            yield Finding(
                FILE, f"app {app_id!r} has not the access rules {expected}", f"set configFilePath: {expected}"
            )
    yield from _ports(estate)
    yield from _common(estate)


def _entry(app: App) -> Iterator[Finding]:
    command = [str(word) for word in app.run.get("command") or []]
    if command[-2:] != ["-m", f"agents.{app.name}"]:
        yield Finding(
            FILE, f"app {app.name!r} does not run agents/{app.name}", f"end its command with -m, agents.{app.name}"
        )
    if not app.port:
        yield Finding(FILE, f"app {app.name!r} has no appPort", "give it one of its own")
    if app.kind == "agent" and not app.grpc_port:
        yield Finding(FILE, f"agent {app.name!r} serves no gRPC", 'give it env: {SIDECARD_GRPC_PORT: "…"}')


def _ports(estate: Estate) -> Iterator[Finding]:
    taken: dict[int, str] = {}
    for app_id, run in estate.run_file.items():
        for name in PORTS:
            if name not in run and not (name == "appPort" and not run.get("command")):
                yield Finding(
                    FILE, f"app {app_id!r} has no {name}", "fix it: a port that Dapr picks is another each time"
                )
        grpc = dig(run, "env", "SIDECARD_GRPC_PORT")
        named = {name: run[name] for name in PORTS if name in run} | ({"SIDECARD_GRPC_PORT": grpc} if grpc else {})
        for name, port in named.items():
            number, owner = int(port), f"{name} of {app_id!r}"
            if number in taken:
                yield Finding(FILE, f"port {number} is both {taken[number]} and {owner}", "change one of them")
            taken[number] = owner


def _common(estate: Estate) -> Iterator[Finding]:
    common = estate.document(FILE).get("common") or {}
    for folder in ("components", "resiliency"):
        if folder not in (common.get("resourcesPaths") or []):
            yield Finding(FILE, f"sidecars do not load {folder}/", f"add {folder} to common.resourcesPaths")
    if not common.get("maxBodySize") or not common.get("readBufferSize"):
        yield Finding(
            FILE, "daprd refuses large requests before the apps can answer them",
            "set common.maxBodySize above the apps' own limit, and common.readBufferSize",
        )  # fmt: skip
