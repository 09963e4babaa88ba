"""Real state stores behind real sidecars: SQLite, PostgreSQL and Redis, started for the run and gone afterwards."""

import contextlib

import pytest

from chaos import servers
from sidecard.tasks.store import KINDS


@pytest.fixture(scope="session", params=KINDS)
def sidecar(request, tmp_path_factory):
    """A sidecar over each kind of store in turn."""
    with _sidecar(request.param, tmp_path_factory.mktemp("daprd")) as started:
        yield started


@pytest.fixture(scope="session", params=[kind for kind, (shared, _) in KINDS.items() if shared])
def shared_sidecar(request, tmp_path_factory):
    """A sidecar over each kind of store that replicas may share."""
    with _sidecar(request.param, tmp_path_factory.mktemp("daprd")) as started:
        yield started


@contextlib.contextmanager
def _sidecar(kind, folder):
    stores = {"state.postgresql": servers.postgresql, "state.redis": servers.redis}
    with stores.get(kind, contextlib.nullcontext)() as store, servers.sidecar(kind, store, folder) as started:
        yield started
