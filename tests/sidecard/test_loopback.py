"""Clients that stay on this machine: they speak no TLS, and read no certificates for it."""

import ssl

import httpx
import pytest

from sidecard.cli import system
from sidecard.loopback import NO_CERTIFICATES
from sidecard.settings import Settings
from sidecard.sidecar import MeshTransport, sidecar_client


@pytest.fixture
def asked(monkeypatch):
    """How often the certificates of this machine's authorities were read."""
    contexts = []
    build = ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", lambda *args, **more: contexts.append(1) or build(*args, **more))
    return contexts


async def test_a_client_of_the_own_sidecar_reads_no_certificates(asked):
    """It takes 40 ms, which a booking would pay each time."""
    settings = Settings(app_id="flights")
    await sidecar_client(settings).aclose()
    await MeshTransport(settings).aclose()
    assert not asked
    await httpx.AsyncClient().aclose()
    assert asked


def test_asking_whether_an_app_is_healthy_reads_no_certificates(asked):
    """`sidecard up` asks all of them again and again, while they need the processor themselves."""
    assert not system._answers("http://127.0.0.1:9/healthz")
    assert not asked


def test_nobody_is_trusted():
    """What turns out to speak TLS is refused: no authority is known, and certificates are asked for."""
    assert NO_CERTIFICATES.verify_mode is ssl.CERT_REQUIRED
    assert NO_CERTIFICATES.check_hostname
    assert not NO_CERTIFICATES.get_ca_certs()
