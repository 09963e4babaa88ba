"""The own sidecar: the mesh transport, secrets, and the gate that lets only it in."""

import asyncio
import contextlib
import re

import httpx
import pytest
from pydantic import SecretStr
from starlette.responses import PlainTextResponse

from sidecard.errors import ConfigurationError, StoreUnavailable
from sidecard.settings import Settings
from sidecard.sidecar import MeshTransport, OwnSidecarOnly, read_secret, sidecar_client
from sidecard.tasks.store import DaprStateStore


@pytest.fixture
def settings(monkeypatch, tmp_path) -> Settings:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAPR_HTTP_PORT", "3506")
    monkeypatch.setenv("DAPR_API_TOKEN", "sidecars")
    monkeypatch.setenv("APP_API_TOKEN", "apps")
    return Settings.load("registry")


def secret_answer(settings, response: httpx.Response):
    return read_secret(sidecar_client(settings, httpx.MockTransport(lambda _: response)), "trust", "publishers")


async def test_a_request_to_an_app_goes_through_the_own_sidecar(settings):
    """Host becomes app-id, the path and body stay as they are, and the API token is added."""
    seen = []

    async def sidecar(request: httpx.Request) -> httpx.Response:
        seen.append((request.method, str(request.url), await request.aread(), request.headers["dapr-api-token"]))
        assert request.headers["host"] == "127.0.0.1:3506"
        return httpx.Response(200)

    async with httpx.AsyncClient(transport=MeshTransport(settings, httpx.MockTransport(sidecar))) as mesh:
        await mesh.post("http://flights/a2a/x%2Fy?q=1", content=b"body", headers={"dapr-api-token": "forged"})
    url = "http://127.0.0.1:3506/v1.0/invoke/flights/method/a2a/x%2Fy?q=1"
    assert seen == [("POST", url, b"body", "sidecars")]


@pytest.fixture
async def daprd(settings):
    """Listens where the sidecar would: the requests, how many of them open the way, and what ends their answers."""
    requests, many, over = [], asyncio.Barrier(151), asyncio.Event()

    async def answer(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", head.lower())[1])
        requests.append((head, await reader.readexactly(length)))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n: here\n\n")
        if not over.is_set():
            await many.wait()
        await over.wait()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    settings.dapr_http_port = server.sockets[0].getsockname()[1]
    yield requests, many, over
    over.set()
    server.close()


async def test_what_is_sent_is_what_was_asked_for(settings, daprd):
    """Over a real connection: an escaped path is not unescaped, and a body has its length."""
    requests, _, over = daprd
    over.set()
    async with httpx.AsyncClient(transport=MeshTransport(settings)) as mesh:
        await mesh.post("http://flights/a2a/x%2Fy%20z?q=a%2Bb", json={"a": 1})
    [(head, body)] = requests
    assert head.startswith(b"POST /v1.0/invoke/flights/method/a2a/x%2Fy%20z?q=a%2Bb HTTP/1.1\r\n")
    assert body == b'{"a":1}'


async def test_no_path_leads_out_of_its_app(settings, daprd):
    """Cards name paths: one with dots in it would reach the own sidecar's other interfaces, with its token."""
    requests, _, over = daprd
    over.set()
    async with httpx.AsyncClient(transport=MeshTransport(settings)) as mesh:
        for path in ("%2e%2e/%2e%2e/%2e%2e/shutdown", "a/%2E%2e/../../method/x", "../../../shutdown", ".%2e/.%2e/x"):
            with contextlib.suppress(httpx.UnsupportedProtocol):
                await mesh.post(f"http://flights/{path}", json={})
    assert all(head.startswith(b"POST /v1.0/invoke/flights/method/") for head, _ in requests)
    assert len(requests) < 4


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"garbage\r\n\r\n", httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\nx: " + b"a" * 9_000 + b"\r\n\r\n", httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\ncontent-le", httpx.RemoteProtocolError),
        (b"", httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n{}", httpx.ReadError),
        (None, httpx.ConnectError),
    ],
)
async def test_what_goes_wrong_on_the_way_is_an_error_of_httpx(settings, answer, error):
    """By its right name: callers know which of them may pass."""

    async def give(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(give, "127.0.0.1", 0)
    settings.dapr_http_port = server.sockets[0].getsockname()[1]
    if answer is None:
        server.close()
        await server.wait_closed()
    async with httpx.AsyncClient(transport=MeshTransport(settings)) as mesh:
        with pytest.raises(error) as caught:
            await mesh.post("http://flights/a2a", json={})
    server.close()
    assert type(caught.value) is error


async def test_any_number_of_streams_may_be_open(settings, daprd):
    """Each delegated task that is followed holds one, and none keeps the next from being delegated."""
    _, many, over = daprd
    async with httpx.AsyncClient(transport=MeshTransport(settings), timeout=10) as mesh:
        answers = asyncio.gather(*(mesh.post("http://flights/a2a", json=number) for number in range(150)))
        await asyncio.wait_for(many.wait(), 10)
        over.set()
        assert {answer.text for answer in await answers} == {": here\n\n"}


class Pieces(httpx.AsyncByteStream):
    """A body that comes in pieces and knows whether it was closed."""

    def __init__(self, *pieces):
        self.pieces = pieces
        self.closed = False

    async def __aiter__(self):
        for piece in self.pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    async def aclose(self):
        self.closed = True


@pytest.mark.parametrize(
    ("pieces", "media_type"),
    [
        ([b'{"error": ', b"{}}"], "application/json"),
        ([b"data: {}\n\n", b"data: {}\n\n"], "text/event-stream"),
        ([b": ping\n\n"], "text/event-stream"),
        ([], "text/event-stream"),
    ],
)
async def test_a_refusal_is_json_although_daprd_calls_it_a_stream(settings, pieces, media_type):
    """And what is a stream stays one; nothing of either is lost."""
    body = Pieces(*pieces)
    answer = httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=body)
    transport = MeshTransport(settings, httpx.MockTransport(lambda _: answer))
    async with (
        httpx.AsyncClient(transport=transport) as mesh,
        mesh.stream("POST", "http://flights/a2a", headers={"accept": "text/event-stream"}) as response,
    ):
        assert response.headers["content-type"] == media_type
        assert await response.aread() == b"".join(pieces)
    assert body.closed


async def test_a_stream_that_breaks_before_its_first_byte_is_closed(settings):
    """Its connection is not kept."""
    body = Pieces(httpx.ReadError("broken"))
    answer = httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=body)
    async with httpx.AsyncClient(transport=MeshTransport(settings, httpx.MockTransport(lambda _: answer))) as mesh:
        with pytest.raises(httpx.ReadError):
            await mesh.post("http://flights/a2a")
    assert body.closed


async def test_no_proxy_is_asked(settings, monkeypatch):
    """A proxy in the environment never sees what goes to the own sidecar: its API token, and the secrets that it gives.

    The state store's gRPC channel is as private.
    """
    asked = []

    async def answer(reader, writer):
        asked.append(await reader.read(100))
        writer.close()

    proxy = await asyncio.start_server(answer, "127.0.0.1", 0)
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}")
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    store = DaprStateStore(grpc_port=9, token="sidecars")
    with pytest.raises(StoreUnavailable):
        await store.read(["a key"])
    await store.close()
    async with sidecar_client(settings.model_copy(update={"dapr_http_port": 9})) as sidecar:
        with pytest.raises(StoreUnavailable):
            await read_secret(sidecar, "trust", "publishers")
    proxy.close()
    assert asked == []


async def test_a_secret_is_read(settings):
    """The value under the key is what comes back."""
    assert await secret_answer(settings, httpx.Response(200, json={"publishers": "{}"})) == "{}"


@pytest.mark.parametrize(
    "response",
    [
        httpx.Response(401),
        httpx.Response(403),
        httpx.Response(404),
        httpx.Response(204),
        httpx.Response(200, json={"other": "x"}),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={"publishers": 7}),
        httpx.Response(200, text="nonsense"),
    ],
)
async def test_a_secret_that_is_not_there_is_a_configuration_error(settings, response):
    """What is missing and what to do is in the message."""
    with pytest.raises(ConfigurationError, match=r"secret 'trust' \(publishers\) of component 'secrets'.*(check|run)"):
        await secret_answer(settings, response)


async def test_a_failing_secret_store_is_unavailable(settings):
    """A sidecar that is not up, or whose store fails, may be in order soon."""
    with pytest.raises(StoreUnavailable, match="HTTP 500"):
        await secret_answer(settings, httpx.Response(500))

    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(StoreUnavailable, match="own sidecar does not answer"):
        await read_secret(sidecar_client(settings, httpx.MockTransport(refuse)), "trust", "publishers")


@pytest.mark.parametrize(
    ("token", "sent", "method", "path", "status"),
    [
        ("apps", "apps", "GET", "/agents", 200),
        ("apps", "Apps", "GET", "/agents", 401),
        ("apps", "apps\xe9", "GET", "/agents", 401),
        ("apps", "", "GET", "/agents", 401),
        ("apps", None, "GET", "/agents", 401),
        ("apps", None, "GET", "/nothing", 401),
        ("apps", None, "GET", "/healthz", 200),
        ("apps", None, "HEAD", "/readyz", 200),
        ("apps", None, "POST", "/healthz", 401),
        ("apps", None, "GET", "/healthz/x", 401),
        ("", "", "GET", "/agents", 401),
        ("", None, "GET", "/agents", 401),
        ("", None, "GET", "/healthz", 200),
    ],
)
async def test_only_the_own_sidecar_comes_in(token, sent, method, path, status):
    """Without the right token only the probes answer; without a configured token nothing else ever does."""
    app = OwnSidecarOnly(PlainTextResponse("in"), SecretStr(token))
    headers = {} if sent is None else {"dapr-api-token": sent.encode("latin-1")}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
        assert (await client.request(method, path, headers=headers)).status_code == status


@pytest.mark.parametrize("header", ["dapr-caller-app-id", "dapr-api-token", "x-api-key"])
async def test_who_says_twice_who_calls_is_nobody(header):
    """The sidecar hands a made-up app-id on, before or after the true one: neither is believed."""
    app = OwnSidecarOnly(PlainTextResponse("in"), SecretStr("apps"))
    headers = [("dapr-api-token", "apps"), ("dapr-caller-app-id", "flights"), ("x-api-key", "key")]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
        assert (await client.get("/agents", headers=headers)).status_code == 200
        said = next(pair for pair in headers if pair[0] == header)
        assert (await client.get("/agents", headers=[*headers, said])).status_code == 401


async def test_no_websocket_comes_in():
    """A websocket is closed at once."""
    sent = []

    async def send(message):
        sent.append(message["type"])

    async def receive():
        return {"type": "websocket.connect"}

    app = OwnSidecarOnly(PlainTextResponse("in"), SecretStr("apps"))
    await app({"type": "websocket", "path": "/agents", "headers": []}, receive, send)
    assert sent == ["websocket.close"]
