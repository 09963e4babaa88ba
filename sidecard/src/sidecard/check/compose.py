"""docker-compose.yml against dapr.yaml: each app, and beside it in the same network namespace its sidecar."""

from collections.abc import Iterator
from typing import Any

from sidecard.check import images
from sidecard.check.estate import App, Estate, dig
from sidecard.check.finding import Finding

FILE = "docker-compose.yml"
_LOOPBACK = "127.0.0.1"


def check(estate: Estate) -> Iterator[Finding]:
    """The same app-ids, ports, rules and probes as on the laptop; nothing published beyond it."""
    services: dict[str, dict[str, Any]] = estate.document(FILE).get("services") or {}
    if not services:
        return
    for app in estate.apps.values():
        if app.name in services:
            yield from _app(app, services[app.name])
        else:
            yield Finding(FILE, f"there is no service {app.name!r}", "add it, and its sidecar")
    for app_id in estate.run_file:
        name = f"{app_id}-sidecar"
        if name in services:
            yield from _sidecar(estate, app_id, services[name])
        else:
            yield Finding(FILE, f"there is no service {name!r}", f"add the sidecar of {app_id!r}")
    for name, service in services.items():
        yield from _published(name, service)
    dapr = {str(s.get("image", "")).rpartition(":")[2] for s in services.values() if "daprio/" in str(s.get("image"))}
    if len(dapr) > 1:
        yield Finding(FILE, f"sidecars and sentry are of several versions: {', '.join(sorted(dapr))}", "choose one")


def _published(name: str, service: dict[str, Any]) -> Iterator[Finding]:
    if "image" in service:
        yield from images.check(FILE, f"service {name!r}", str(service["image"]))
    elif "build" not in service:
        yield Finding(FILE, f"service {name!r} has neither image nor build", "give it one")
    for port in service.get("ports") or []:
        if not str(port).startswith(f"{_LOOPBACK}:") and dig(port, "host_ip") != _LOOPBACK:
            yield Finding(FILE, f"service {name!r} publishes {port} to the network", f"put {_LOOPBACK}: before it")


def _app(app: App, service: dict[str, Any]) -> Iterator[Finding]:
    who = f"service {app.name!r}"
    command = [str(word) for word in service.get("command") or []]
    if command[-2:] != ["-m", f"agents.{app.name}"]:
        yield Finding(FILE, f"{who} does not run agents/{app.name}", f"end its command with -m, agents.{app.name}")
    environment = _environment(service)
    for name, port in (("APP_PORT", app.port), ("SIDECARD_GRPC_PORT", app.grpc_port)):
        if environment.get(name, "") != str(port or ""):
            yield Finding(FILE, f"{who} has {name}={environment.get(name)}, dapr.yaml has {port}", "write the same")
    if environment.get("SIDECARD_HOST") == "0.0.0.0" and not service.get("ports"):  # noqa: S104 -- it is what is looked for
        yield Finding(FILE, f"other containers reach {who} past its sidecar", f"set SIDECARD_HOST: {_LOOPBACK}")
    probe = " ".join(map(str, dig(service, "healthcheck", "test") or []))
    if f":{app.port}/" not in probe or not ("/readyz" in probe or "/healthz" in probe):
        yield Finding(FILE, f"{who} has no healthcheck of its own port", f"ask http://{_LOOPBACK}:{app.port}/readyz")
    yield from _tokens(app.name, who, service)


def _sidecar(estate: Estate, app_id: str, service: dict[str, Any]) -> Iterator[Finding]:
    who = f"service '{app_id}-sidecar'"
    words = [str(word) for word in service.get("command") or []]
    app = estate.apps.get(app_id)
    flags = {"--app-id": app_id, "--config": f"/components/access/{app_id}.yaml"}
    if app:
        flags["--app-port"] = str(app.port)
        if service.get("network_mode") != f"service:{app_id}":
            yield Finding(FILE, f"{who} is not in its app's network namespace", f"set network_mode: service:{app_id}")
    for flag, value in flags.items():
        found = words[words.index(flag) + 1] if flag in words[:-1] else None
        if found != value:
            yield Finding(FILE, f"{who} has {flag} {found}", f"write {flag} {value}")
    if "--enable-mtls" not in words or "--sentry-address" not in words:
        yield Finding(FILE, f"{who} runs without mTLS", "add --enable-mtls and --sentry-address")
    loaded = {words[n + 1] for n, word in enumerate(words[:-1]) if word == "--resources-path"}
    for folder in sorted({"/components", "/resiliency"} - loaded):
        yield Finding(FILE, f"{who} does not load {folder}", f"add --resources-path {folder}")
    if not dig(service, "healthcheck", "test"):
        yield Finding(FILE, f"{who} has no healthcheck", "add one: daprd --wait asks a sidecar")
    yield from _tokens(app_id, who, service)


def _tokens(app_id: str, who: str, service: dict[str, Any]) -> Iterator[Finding]:
    files = service.get("env_file") or []
    listed = [files] if isinstance(files, str) else [str(dig(file, "path") or file) for file in files]
    expected = f".sidecard/tokens/{app_id}.env"
    if [file.removeprefix("./") for file in listed] != [expected]:
        yield Finding(FILE, f"{who} has not its own tokens and only them", f"set env_file: {expected}")


def _environment(service: dict[str, Any]) -> dict[str, str]:
    environment = service.get("environment") or {}
    if isinstance(environment, list):
        pairs = (str(item).partition("=") for item in environment)
        return {name: value for name, _, value in pairs}
    return {str(name): str(value) for name, value in environment.items()}
