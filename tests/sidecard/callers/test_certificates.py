"""Client certificates on the ports that are served over TLS, and every way in which one is not the caller's."""

import datetime as dt
import ssl
import time
from dataclasses import replace

import grpc.aio
import httpx
import pytest
from a2a.types import ListTasksRequest
from a2a.types.a2a_pb2_grpc import A2AServiceStub
from cryptography.x509.oid import ExtendedKeyUsageOID

from sidecard import Agent, Task, tls
from sidecard.callers import Callers, CallersFile, Claims, callers, certificates
from sidecard.errors import ConfigurationError
from sidecard.testing import MemoryStore, served
from sidecard.tls import TlsFiles
from tests.sidecard.authority import DAY, Authority

NO_CHECK_TIME = 0x200000
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME."""
VERSION = {"a2a-version": "1.0"}
LIST = {"jsonrpc": "2.0", "id": 1, "method": "ListTasks"}
agent = Agent(name="shop", version="1", description="Sells.", publisher="Tests")


@agent.skill(scope="look", idempotent=True)
async def look(text: str, task: Task) -> str:
    """Look."""
    return text


@pytest.fixture
def ca(tmp_path):
    return Authority(tmp_path)


@pytest.fixture
def other(tmp_path):
    return Authority(tmp_path, "Other")


@pytest.fixture
def files(ca):
    server = ca.server()
    return TlsFiles(server.certificate, server.key, ca.file)


def listed(*names):
    """The callers of an agent: who has one of these certificates, and who has a key."""
    look = {"grants": {"shop": ["look"]}}
    return {"buyer": {"certificates": list(names)} | look, "ada": {"api_key": True} | look}


def trusting(ca, shown=None):
    context = ssl.create_default_context(cafile=str(ca.file))
    if shown:
        context.load_cert_chain(*shown.pair)
    return context


async def by_http(desk, ca, shown=None, **headers):
    """What ListTasks answers to a client that shows a certificate, by HTTP: the status, or "no connection"."""
    url = desk.card.supported_interfaces[0].url
    async with httpx.AsyncClient(verify=trusting(ca, shown), headers=VERSION | headers) as http:
        try:
            return (await http.post(url, json=LIST)).status_code
        except httpx.TransportError:
            return "no connection"


async def by_grpc(desk, ca, shown=None, **metadata):
    """The same by gRPC, in HTTP's words."""
    pair = {"private_key": shown.key.read_bytes(), "certificate_chain": shown.certificate.read_bytes()} if shown else {}
    credentials = grpc.ssl_channel_credentials(ca.file.read_bytes(), **pair)
    async with grpc.aio.secure_channel(desk.grpc_target, credentials) as channel:
        try:
            sent = tuple((VERSION | {name.replace("_", "-"): value for name, value in metadata.items()}).items())
            await A2AServiceStub(channel).ListTasks(ListTasksRequest(), metadata=sent, timeout=10)
        except grpc.aio.AioRpcError as error:
            return {grpc.StatusCode.UNAUTHENTICATED: 401, grpc.StatusCode.UNAVAILABLE: "no connection"}[error.code()]
    return 200


async def both(desk, ca, shown=None):
    return {await by_http(desk, ca, shown), await by_grpc(desk, ca, shown)}


@pytest.mark.parametrize("name", ["thumbprint", "Thumbprint", "uri", "dns"])
async def test_a_listed_certificate_is_its_caller(ca, files, name):
    """By its thumbprint, as openssl writes it, too, or by an alternative name that the pinned CA has put into it."""
    shown = ca.client("buyer", "uri:spiffe://acme/buyer", "dns:Buyer.acme.example")
    colons = ":".join(shown.thumbprint[i : i + 2] for i in range(0, 64, 2)).upper()
    names = {
        "thumbprint": f"sha256:{shown.thumbprint}",
        "Thumbprint": f"sha256:{colons}",
        "uri": "uri:spiffe://acme/buyer",
        "dns": "dns:buyer.acme.example",
    }
    async with served(agent, MemoryStore(), listed(names[name]), tls=files) as desk:
        assert await both(desk, ca, shown) == {200}
        assert "mutualTLS" in desk.card.security_schemes
        assert {interface.url.partition("//")[0] for interface in desk.card.supported_interfaces[::2]} == {"https:"}


@pytest.mark.parametrize(
    ("alternative", "names"),
    [
        ((), ("dns:buyer",)),  # its common name
        (("dns:buyer.acme.example.evil.example",), ("dns:buyer.acme.example",)),
        (("dns:*.acme.example",), ("dns:buyer.acme.example",)),
        (("uri:spiffe://acme/buyer/2",), ("uri:spiffe://acme/buyer",)),
        (("uri:spiffe://ACME/buyer",), ("uri:spiffe://acme/buyer",)),
        (("uri:spiffe://acme/buyer",), ("dns:acme", "sha256:" + "0" * 64)),
    ],
)
async def test_a_certificate_that_is_not_listed_is_nobody(ca, files, alternative, names):
    """Neither by its common name, nor by a name that begins, ends or is spelled alike. Listed, it comes in."""
    shown = ca.client("buyer", *alternative)
    async with served(agent, MemoryStore(), listed(*names), tls=files) as desk:
        assert await both(desk, ca, shown) == {401}
    async with served(agent, MemoryStore(), listed(f"sha256:{shown.thumbprint}"), tls=files) as desk:
        assert await both(desk, ca, shown) == {200}


async def test_without_a_certificate_a_key_is_needed(ca, files):
    """Over HTTP; gRPC can't ask for a certificate and do without, so there each caller shows one, a key beside it."""
    shown = ca.client("buyer", "uri:spiffe://acme/buyer")
    async with served(agent, MemoryStore(), listed("uri:spiffe://acme/buyer"), tls=files) as desk:
        assert await by_http(desk, ca) == 401
        assert await by_http(desk, ca, **{"x-api-key": "ada's key"}) == 200
        assert await by_grpc(desk, ca) == "no connection"
        assert await by_grpc(desk, ca, shown, x_api_key="ada's key") == 200
        assert await by_grpc(desk, ca, shown, x_api_key="a guess") == 401


async def test_a_certificate_of_another_ca_gets_no_connection(ca, other, files, tmp_path):
    """Even one with the same name and alternative names. Where that CA is pinned as well, it comes in."""
    shown = other.client("buyer", "uri:spiffe://acme/buyer")
    async with served(agent, MemoryStore(), listed("uri:spiffe://acme/buyer"), tls=files) as desk:
        assert await both(desk, ca, shown) == {"no connection"}
    two = tmp_path / "two.pem"
    two.write_bytes(ca.file.read_bytes() + other.file.read_bytes())
    async with served(
        agent, MemoryStore(), listed("uri:spiffe://acme/buyer"), tls=TlsFiles(files.certificate, files.key, two)
    ) as desk:
        assert await both(desk, ca, shown) == {200}


async def test_a_certificate_out_of_its_time_or_use_gets_no_connection(ca, files):
    """Expired, not valid yet, a server's. The same one, within both, comes in."""
    refused = [
        ca.client("expired", "dns:buyer.example", begins=-2 * DAY, ends=-DAY),
        ca.client("early", "dns:buyer.example", begins=DAY, ends=2 * DAY),
        ca.server("service"),
    ]
    names = ["dns:buyer.example", f"sha256:{refused[2].thumbprint}"]
    async with served(agent, MemoryStore(), listed(*names), tls=files) as desk:
        for shown in refused:
            assert await both(desk, ca, shown) == {"no connection"}
        assert await both(desk, ca, ca.client("valid", "dns:buyer.example")) == {200}


async def test_a_certificate_that_expires_ends_with_its_connection_open(ca, files, monkeypatch):
    """The handshake was in time; requests behind it are not. Without that check they would be let in."""
    shown = ca.client("short", "dns:buyer.example", ends=dt.timedelta(hours=1))
    async with served(agent, MemoryStore(), listed("dns:buyer.example"), tls=files) as desk:
        url = desk.card.supported_interfaces[0].url
        async with httpx.AsyncClient(verify=trusting(ca, shown), headers=VERSION) as http:

            async def status():
                return (await http.post(url, json=LIST)).status_code

            assert await status() == 200
            now = time.time()
            monkeypatch.setattr(certificates.time, "time", lambda: now + 3_601)
            assert await status() == 401
            monkeypatch.setattr(certificates.Certificate, "is_valid", lambda _: True)
            assert await status() == 200


async def test_it_ends_over_grpc_too(ca, files, monkeypatch):
    """On the channel that was opened in time. Without that check its calls would go on being served."""
    shown = ca.client("short", "dns:buyer.example", ends=dt.timedelta(hours=1))
    pair = shown.key.read_bytes(), shown.certificate.read_bytes()
    credentials = grpc.ssl_channel_credentials(ca.file.read_bytes(), *pair)
    async with (
        served(agent, MemoryStore(), listed("dns:buyer.example"), tls=files) as desk,
        grpc.aio.secure_channel(desk.grpc_target, credentials) as channel,
    ):

        async def status():
            try:
                await A2AServiceStub(channel).ListTasks(ListTasksRequest(), metadata=tuple(VERSION.items()), timeout=10)
            except grpc.aio.AioRpcError as error:
                return error.code()
            return grpc.StatusCode.OK

        assert await status() == grpc.StatusCode.OK
        now = time.time()
        monkeypatch.setattr(certificates.time, "time", lambda: now + 3_601)
        assert await status() == grpc.StatusCode.UNAUTHENTICATED
        monkeypatch.setattr(certificates.Certificate, "is_valid", lambda _: True)
        assert await status() == grpc.StatusCode.OK


async def test_without_the_demand_for_a_certificate_grpc_takes_a_key_alone(ca, files, monkeypatch):
    """What that is worth: whoever has got hold of a key comes in by it, with no certificate or one of another CA."""
    key = {"x_api_key": "ada's key"}
    async with served(agent, MemoryStore(), listed(), tls=files) as desk:
        assert await by_grpc(desk, ca, **key) == "no connection"
    made = grpc.dynamic_ssl_server_credentials
    monkeypatch.setattr(tls.grpc, "dynamic_ssl_server_credentials", lambda first, renewed, _: made(first, renewed))
    async with served(agent, MemoryStore(), listed(), tls=files) as desk:
        assert await by_grpc(desk, ca) == 401
        assert await by_grpc(desk, ca, **key) == 200


async def test_without_the_list_any_certificate_of_the_ca_comes_in_by_grpc(ca, files, monkeypatch):
    """What our own look at it is worth there: TLS lets in whoever has one of the pinned CA."""
    shown = ca.client("another", "dns:another.example")
    async with served(agent, MemoryStore(), listed("dns:buyer.example"), tls=files) as desk:
        assert await by_grpc(desk, ca, shown) == 401
        first = lambda known, _: next(iter(known._by_certificate.values()))  # noqa: E731
        monkeypatch.setattr(Callers, "_certified", first)
        assert await by_grpc(desk, ca, shown) == 200


async def test_plain_text_to_a_tls_port_gets_nothing(ca, files):
    """Whatever key it carries; without TLS set up the same request is served."""
    key = {"x-api-key": "ada's key"}
    async with served(agent, MemoryStore(), listed(), tls=files) as desk, httpx.AsyncClient() as http:
        plain = desk.card.supported_interfaces[0].url.replace("https", "http")
        with pytest.raises(httpx.TransportError):
            await http.post(plain, json=LIST, headers=VERSION | key)
        assert await plain_grpc(desk, key) == grpc.StatusCode.UNAVAILABLE
    async with served(agent, MemoryStore(), listed()) as desk:
        assert await plain_grpc(desk, key) is None


async def plain_grpc(desk, key):
    async with grpc.aio.insecure_channel(desk.grpc_target) as channel:
        try:
            metadata = tuple((VERSION | key).items())
            await A2AServiceStub(channel).ListTasks(ListTasksRequest(), metadata=metadata, timeout=10)
        except grpc.aio.AioRpcError as error:
            return error.code()
    return None


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_old_tls_gets_no_connection(ca, files, version):
    """TLS 1.2 and 1.3 do."""
    async with served(agent, MemoryStore(), listed(), tls=files) as desk:

        async def connects(lowest, highest):
            context = trusting(ca)
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.minimum_version, context.maximum_version = lowest, highest
            async with httpx.AsyncClient(verify=context, headers=VERSION) as http:
                try:
                    return (await http.post(desk.card.supported_interfaces[0].url, json=LIST)).status_code
                except httpx.TransportError:
                    return "no connection"

        assert await connects(version, version) == "no connection"
        assert await connects(ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2) == 401
        assert await connects(ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_3) == 401


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_without_a_lowest_version_old_tls_connects(ca, files, monkeypatch):
    """What that is worth: a server that does not name one talks to whoever speaks TLS 1.1."""
    made = TlsFiles.ssl_context

    def lenient(of):
        context = made(of)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.set_ciphers("ALL:@SECLEVEL=0")
        return context

    monkeypatch.setattr(TlsFiles, "ssl_context", lenient)
    old = trusting(ca)
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    client = httpx.AsyncClient(verify=old, headers=VERSION)
    async with served(agent, MemoryStore(), listed(), tls=files) as desk, client as http:
        assert (await http.post(desk.card.supported_interfaces[0].url, json=LIST)).status_code == 401


async def test_renewed_files_count_for_the_next_connection(ca, other, files, caplog):
    """The server's certificate and the clients' CA; files that are broken for now change nothing."""
    former, later = ca.client("former", "dns:buyer.example"), other.client("later", "dns:buyer.example")
    async with served(agent, MemoryStore(), listed("dns:buyer.example"), tls=files) as desk:
        assert await both(desk, ca, former) == {200}
        good = files.certificate.read_bytes()
        files.certificate.write_text("half a cert")
        assert await both(desk, ca, former) == {200}
        assert "the former certificate is still served" in caplog.text
        files.certificate.write_bytes(good)
        files.client_ca.write_bytes(other.file.read_bytes())
        other.server()
        assert await both(desk, other, former) == {"no connection"}
        assert await both(desk, other, later) == {200}


def known_by(*names):
    file = CallersFile.model_validate({"callers": listed(*names)})
    return Callers("shop", file, app_token="t", api_keys={})


def der_of(shown):
    return ssl.PEM_cert_to_DER_cert(shown.certificate.read_text())


async def test_a_certificate_beside_a_header_counts_for_nothing(ca, monkeypatch):
    """Not even when the header proves nothing: which credential counts is not for an attacker to choose.

    Where the headers are overlooked, the certificate counts.
    """
    known, der = known_by("dns:buyer.example"), der_of(ca.client("buyer", "dns:buyer.example"))
    beside = [Claims.of(headers.items(), der) for headers in ({"x-api-key": "x"}, {"authorization": "Bearer x"})]
    assert [await known.identify(claims) for claims in beside] == [None, None]
    assert Claims.of([("x-api-key", "a"), ("x-api-key", "b")], der) == Claims()
    monkeypatch.setattr(Claims, "key", "")
    monkeypatch.setattr(Claims, "authorization", "")
    assert [(await known.identify(claims)).name for claims in beside] == ["buyer", "buyer"]


async def test_without_a_look_at_its_use_a_servers_certificate_is_a_caller(ca, monkeypatch):
    """What it is worth that TLS is not alone in looking: it is nobody, until what it is for is overlooked."""
    shown = ca.server("service")
    known, claims = known_by(f"sha256:{shown.thumbprint}"), Claims(certificate=der_of(shown))
    assert await known.identify(claims) is None
    monkeypatch.setattr(certificates, "_FOR_CLIENTS", {ExtendedKeyUsageOID.SERVER_AUTH})
    certificates.read_certificate.cache_clear()
    try:
        assert (await known.identify(claims)).name == "buyer"
    finally:
        certificates.read_certificate.cache_clear()


async def test_without_a_look_at_its_time_an_expired_certificate_comes_in(ca, files, monkeypatch):
    """What both looks are worth: that of the handshake, and then ours."""
    shown, made = ca.client("expired", "dns:buyer.example", begins=-2 * DAY, ends=-DAY), TlsFiles.ssl_context

    def timeless(of):
        context = made(of)
        context.verify_flags |= NO_CHECK_TIME
        return context

    monkeypatch.setattr(TlsFiles, "ssl_context", timeless)
    async with served(agent, MemoryStore(), listed("dns:buyer.example"), tls=files) as desk:
        assert await by_http(desk, ca, shown) == 401
        monkeypatch.setattr(certificates.Certificate, "is_valid", lambda _: True)
        assert await by_http(desk, ca, shown) == 200


async def test_a_certificate_with_the_names_of_two_callers_is_nobody(ca, monkeypatch):
    """And in the file a name belongs to one."""
    grants = {"grants": {"shop": ["look"]}}
    file = {
        "one": {"certificates": ["dns:one.example"]} | grants,
        "two": {"certificates": ["dns:two.example"]} | grants,
    }
    known = Callers("shop", CallersFile.model_validate({"callers": file}), app_token="t", api_keys={})

    async def who(*names):
        der = ssl.PEM_cert_to_DER_cert(ca.client("x", *names).certificate.read_text())
        caller = await known.identify(Claims(certificate=der))
        return caller and caller.name

    assert await who("dns:one.example") == "one"
    assert await who("dns:two.example", "dns:three.example") == "two"
    assert await who("dns:one.example", "dns:two.example") is None
    with monkeypatch.context() as patched:  # where the first name that is listed counts, it is somebody
        read = certificates.read_certificate
        patched.setattr(callers, "read_certificate", lambda der: replace(read(der), names={"dns:one.example"}))
        assert await who("dns:one.example", "dns:two.example") == "one"
    with pytest.raises(ValueError, match="one caller's"):
        CallersFile.model_validate({"callers": file | {"three": file["one"]}})


async def test_what_is_no_certificate_is_nobody():
    """Bytes that can't be read."""
    known = Callers("shop", CallersFile.model_validate({"callers": listed()}), app_token="t", api_keys={})
    assert await known.identify(Claims(certificate=b"0\x82")) is None


@pytest.mark.parametrize(
    "name",
    ["CN=buyer", "buyer", "sha256:12", "dns:*.acme.example", "dns:", "uri:buyer", "uri:a: b", "sha1:" + "0" * 40],
)
def test_the_file_names_certificates_exactly(name):
    """By nothing else than what nobody but the CA decides; in words."""
    with pytest.raises(ValueError, match="name a certificate by sha256:"):
        CallersFile.model_validate({"callers": listed(name)})


@pytest.mark.parametrize("missing", ["certificate", "key", "client_ca"])
async def test_files_that_can_not_be_used_are_named_before_anything_is_served(files, missing):
    """Missing ones as well as others."""
    path = getattr(files, missing)
    for spoil in (lambda: path.write_text("no PEM"), path.unlink):
        spoil()
        with pytest.raises(ConfigurationError, match=path.name):
            files.ssl_context()
        with pytest.raises(ConfigurationError, match=path.name):
            files.grpc_configuration()
