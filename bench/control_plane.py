"""What Dapr Workflow needs beside our running system: placement, scheduler, and a sidecar whose store takes actors."""

import contextlib
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.estate import ROOT, SQLITE, WORKFLOW, Estate, access_of, state_of, write
from bench.load import Order
from bench.workflow import DONE, PATH
from chaos.servers import Server, free_ports, running
from sidecard.cli import runtime
from sidecard.cli.console import Console
from sidecard.cli.project import Project

HERE = "127.0.0.1"


@contextlib.contextmanager
def workflow(system: Estate, folder: Path) -> Iterator[Order]:
    """The app of `bench.workflow`, up inside; gives how to have one workflow run.

    Its control plane and its sidecar have certificates of the system's own sentry, and its store is what our agents
    have. Raises ConfigurationError where placement and scheduler can be neither found nor built.
    """
    programs = runtime.ensure(Project(ROOT), Console(), runtime.WORKFLOWS)
    anchors = system.project.local / "sentry" / "ca.crt"
    sentry = f"--sentry-address {HERE}:{system.sentry_port}"
    control = f"--tls-enabled --trust-anchors-file {anchors} --mode standalone {sentry}"
    with contextlib.ExitStack() as stack:

        def start(name: str, command: str, port: int, **environment: str) -> None:
            log, environment = folder / f"{name}.log", {"NAMESPACE": "default", **environment}
            stack.enter_context(running(Server(command.split(), port, environment=environment, log=log)))

        placement, scheduler, http, grpc, internal, metrics, port, raft, etcd, peer, *health = free_ports(12)
        # Their health is served on all addresses, as sentry's is; it says no more than "ok".
        start(
            "placement",
            f"{programs['placement']} --listen-address {HERE} --port {placement} --healthz-port {health[0]} {control}"
            f" --initial-cluster dapr-placement-0={HERE}:{raft} --enable-metrics=false",
            placement,
        )
        start(
            "scheduler",
            f"{programs['scheduler']} --listen-address {HERE} --port {scheduler} --healthz-port {health[1]} {control}"
            f" --override-broadcast-host-port {HERE}:{scheduler} --etcd-client-listen-address {HERE}"
            f" --etcd-client-port {etcd} --etcd-initial-cluster dapr-scheduler-server-0=http://{HERE}:{peer}"
            f" --etcd-data-dir {folder}/etcd --identity-directory-write {folder}/identity --enable-metrics=false",
            scheduler,
        )
        resources, configuration = folder / "components", folder / "configuration.yaml"
        store = SQLITE | {"connectionString": f"{folder}/workflow.db", "actorStateStore": "true"}
        write(resources / "state.yaml", state_of(store, [WORKFLOW]))
        write(configuration, access_of(WORKFLOW))
        token = secrets.token_urlsafe()
        start(
            "daprd",
            f"{ROOT}/runtime/bin/daprd --app-id {WORKFLOW} --resources-path {resources} --config {configuration}"
            f" --dapr-http-port {http} --dapr-grpc-port {grpc} --dapr-internal-grpc-port {internal}"
            f" --metrics-port {metrics} --metrics-listen-address {HERE} --dapr-listen-addresses {HERE}"
            f" --dapr-internal-grpc-listen-address {HERE} --enable-mtls {sentry}"
            f" --placement-host-address {HERE}:{placement} --scheduler-host-address {HERE}:{scheduler}",
            http,
            DAPR_API_TOKEN=token,
            DAPR_HOST_IP=HERE,
            DAPR_TRUST_ANCHORS=anchors.read_text(),
        )
        start(
            "app",
            f"{sys.executable} -m bench.workflow {WORKFLOW}",
            port,
            APP_PORT=str(port),
            DAPR_HTTP_PORT=str(http),
            DAPR_GRPC_PORT=str(grpc),
            DAPR_API_TOKEN=token,
        )
        yield Order(port=port, path=PATH, method="", expect=f"\r\n\r\n{DONE}")
