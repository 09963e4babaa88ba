"""Sentry with certificates that live for seconds, for sidecars that speak mTLS."""

import contextlib
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from chaos.servers import ROOT, START_SECONDS, Server, free_ports, running
from sidecard.errors import ConfigurationError

LIFETIME_SECONDS = 20
"""Of a sidecar's certificate; it asks for the next one after half of that."""


@dataclass(frozen=True)
class Authority:
    """A running sentry, and what a daprd needs to have its certificates from it."""

    server: Server
    options: list[str]
    environment: dict[str, str]


@contextlib.contextmanager
def sentry(folder: Path) -> Iterator[Authority]:
    """A sentry with a CA of its own in that folder. Raises ConfigurationError when it makes none."""
    port, health = free_ports(2)
    config = folder / "mtls.yaml"
    mtls = {"enabled": True, "workloadCertTTL": f"{LIFETIME_SECONDS}s", "allowedClockSkew": "1s"}
    configuration = {"apiVersion": "dapr.io/v1alpha1", "kind": "Configuration", "metadata": {"name": "mtls"}}
    config.write_text(yaml.safe_dump({**configuration, "spec": {"mtls": mtls}}))
    options = f"--issuer-credentials={folder} --config={config} --listen-address=127.0.0.1 --port={port}"
    options += f" --healthz-port={health} --enable-metrics=false"
    command = [str(ROOT / "runtime/bin/sentry"), *options.split()]
    with running(Server(command, port, log=folder / "sentry.log")) as server:
        deadline = time.monotonic() + START_SECONDS
        while not (folder / "ca.crt").exists():
            if time.monotonic() > deadline:
                raise ConfigurationError(f"sentry made no CA: {folder / 'sentry.log'}")
            time.sleep(0.02)
        anchors = {"DAPR_TRUST_ANCHORS": (folder / "ca.crt").read_text(), "NAMESPACE": "default"}
        enabled = ["--enable-mtls", "--sentry-address", f"localhost:{port}", "--config", str(config)]
        yield Authority(server, enabled, anchors)


def certificate(port: int) -> str:
    """The certificate that the sidecar with this internal port shows now, or "" when it doesn't answer."""
    with contextlib.suppress(OSError):
        return ssl.get_server_certificate(("127.0.0.1", port), timeout=2)
    return ""
