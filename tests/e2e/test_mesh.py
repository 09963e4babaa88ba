"""Who gets through the sidecars, and who does not: real Sentry, real access rules."""

import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.desk import rpc

SEND = rpc("SendMessage", {"message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "hello"}]}})
JSON = {"content-type": "application/json", "a2a-version": "1.0"}


def through(project, tokens, caller, app, path, method="POST", **headers):  # noqa: PLR0917
    """A request from one app's sidecar to another app."""
    port = project.app(caller).dapr_http_port
    sidecar = {"dapr-api-token": tokens(caller)["DAPR_API_TOKEN"]}
    with httpx.Client(timeout=10, verify=False) as client:
        return client.request(
            method, f"http://127.0.0.1:{port}/v1.0/invoke/{app}/method/{path}",
            content=SEND if method == "POST" else None, headers=JSON | sidecar | headers,
        )  # fmt: skip


def _is_broken(answer) -> bool:
    """Whether the caller's own circuit breaker answers, open or letting one request through to try."""
    return answer.status_code == 500 and ("circuit breaker" in answer.text or "too many requests" in answer.text)


def refused(answer) -> bool:
    """Whether the access rules (or, after many refusals, the caller's own circuit breaker) kept the app out of it."""
    return answer.status_code == 403 or _is_broken(answer)


def _passing(answer, *, allowed: bool) -> bool:
    """Whether the answer says only how things are now: sidecars that reconnect, a breaker that refusals have opened."""
    return "code = Unavailable" in answer.text or (allowed and _is_broken(answer))


ALLOWED = {
    ("desk", "orchestrator", "a2a", "POST"),
    ("desk", "orchestrator", ".well-known/agent-card.json", "GET"),
    ("desk", "registry", "agents", "GET"),
    ("desk", "registry", "estate", "POST"),
    ("desk", "registry", "revoked", "GET"),
    ("desk", "registry", "revoked", "PUT"),
    ("orchestrator", "flights", "a2a", "POST"),
    ("orchestrator", "expenses", "a2a", "POST"),
    ("orchestrator", "flights", ".well-known/agent-card.json", "GET"),
    ("orchestrator", "expenses", ".well-known/agent-card.json", "GET"),
    ("expenses", "compliance", "a2a", "POST"),
    ("expenses", "compliance", ".well-known/agent-card.json", "GET"),
    ("expenses", "vendors", "mcp", "POST"),
    *(("registry", app, ".well-known/agent-card.json", "GET")
      for app in ("orchestrator", "flights", "expenses", "compliance")),
    *((app, "registry", path, "GET") for path in ("agents", "revoked")
      for app in ("orchestrator", "flights", "expenses", "compliance", "vendors")),
}  # fmt: skip
CALLERS = ("desk", "orchestrator", "flights", "expenses", "compliance", "vendors", "registry")
PATHS = [(".well-known/agent-card.json", "GET"), ("a2a", "POST"), ("rest/message:send", "POST"), ("mcp", "POST"),
         ("agents", "GET"), ("revoked", "GET"), ("revoked", "PUT"), ("healthz", "GET"), ("readyz", "GET")]  # fmt: skip


def test_only_what_the_access_rules_list_gets_through(project, tokens):
    """Of every caller, app and path: what is not listed is refused by the callee's sidecar, what is listed is not."""

    def wrong(caller):
        found = []
        for app in CALLERS[1:]:
            cases = [(path, method) for path, method in PATHS if app != caller]
            # What is allowed first: refusals open the caller's circuit breaker for a moment.
            for path, method in sorted(cases, key=lambda case: (caller, app, *case) not in ALLOWED):
                allowed, deadline = (caller, app, path, method) in ALLOWED, time.monotonic() + 10
                answer = through(project, tokens, caller, app, path, method)
                while _passing(answer, allowed=allowed) and time.monotonic() < deadline:
                    time.sleep(0.2)
                    answer = through(project, tokens, caller, app, path, method)
                if refused(answer) is allowed:
                    found.append(f"{caller} → {app} {method} /{path}: {answer.status_code} {answer.text[:300]}")
        return found

    with ThreadPoolExecutor(len(CALLERS)) as pool:
        assert [line for lines in pool.map(wrong, CALLERS) for line in lines] == []


@pytest.mark.parametrize(
    "path",
    ["a2a%2F..%2Frest%2Fmessage:send", "a2a/../rest/message:send", "a2a%2f..%2freadyz", "a2a/..%2freadyz",
     "rest%2Fmessage:send#a2a", "rest/message:send?x=/a2a", "/rest/message:send", "a2a;/../readyz"],
)  # fmt: skip
def test_no_spelling_of_a_path_gets_past_the_access_rules(project, tokens, path):
    """CVE-2026-41491 and its kin: an encoded or dotted path reaches nothing that is not listed."""
    port = project.app("desk").dapr_http_port
    url = f"http://127.0.0.1:{port}/v1.0/invoke/orchestrator/method/"
    with socket.create_connection(("127.0.0.1", port), timeout=10) as raw:
        target = url.removeprefix(f"http://127.0.0.1:{port}") + path.replace("#", "%23")
        token = tokens("desk")["DAPR_API_TOKEN"]
        head = f"POST {target} HTTP/1.1\r\nhost: x\r\ndapr-api-token: {token}\r\ncontent-type: application/json\r\n"
        raw.sendall(
            f"{head}a2a-version: 1.0\r\ncontent-length: {len(SEND)}\r\nconnection: close\r\n\r\n".encode() + SEND
        )
        answer = raw.makefile("rb").read().decode("utf-8", "replace")
    assert int(answer.split()[1]) >= 400, answer[:500]
    assert "ERR_DIRECT_INVOKE" in answer or "404" in answer.splitlines()[0], "an app has answered"


def test_the_sidecars_api_wants_its_apps_token(project, tokens):
    """Without it, or with another app's, the sidecar does nothing for anybody."""
    url = f"http://127.0.0.1:{project.app('orchestrator').dapr_http_port}/v1.0/secrets/secrets/orchestrator"
    assert httpx.get(url).status_code == 401
    assert httpx.get(url, headers={"dapr-api-token": tokens("flights")["DAPR_API_TOKEN"]}).status_code == 401


def test_an_app_reads_only_its_own_secrets(project, tokens):
    """The Configuration's secret scopes: another app's secret is refused."""
    port = project.app("flights").dapr_http_port
    headers = {"dapr-api-token": tokens("flights")["DAPR_API_TOKEN"]}
    base = f"http://127.0.0.1:{port}/v1.0/secrets/secrets"
    assert httpx.get(f"{base}/flights", headers=headers).status_code == 200
    assert httpx.get(f"{base}/orchestrator", headers=headers).status_code == 403


@pytest.mark.parametrize("app", ["orchestrator", "flights", "expenses", "compliance", "vendors", "registry"])
def test_an_app_answers_nobody_directly(project, app):
    """Without the app token or a key all but the card and the probes is refused; a claimed app-id helps nothing."""
    base = f"http://127.0.0.1:{project.app(app).app_port}"
    for headers in ({}, {"dapr-caller-app-id": "orchestrator"}, {"dapr-api-token": "x", "dapr-caller-app-id": "desk"}):
        for path in ("/a2a", "/rest/message:send", "/mcp", "/agents", "/docs", "/openapi.json"):
            answer = httpx.post(base + path, content=SEND, headers=JSON | headers)
            assert answer.status_code in (401, 404), f"{path}: {answer.status_code}"
    assert httpx.get(f"{base}/healthz").status_code == 200


def test_a_caller_cannot_forge_who_it_is(project, tokens):
    """The callee's sidecar says who calls, whatever the caller claims."""
    answer = through(project, tokens, "desk", "orchestrator", "a2a", **{"dapr-caller-app-id": "expenses"})
    assert "expenses" not in answer.text


def test_no_app_enrols_another(project, tokens):
    """Not even by saying so beside what its sidecar says: daprd 1.18 hands both on, in any order, so try often."""
    url = f"http://127.0.0.1:{project.app('flights').dapr_http_port}/v1.0/invoke/registry/method/agents"
    body = {"app_id": "expenses", "kind": "mcp", "url": "http://127.0.0.1:6666"}
    own = ("dapr-api-token", tokens("flights")["DAPR_API_TOKEN"])
    made_up = ("dapr-caller-app-id", "expenses")
    refusals, deadline = 0, time.monotonic() + 60
    while refusals < 12 and time.monotonic() < deadline:
        answer = httpx.put(url, json=body, headers=[own, *[made_up] * (1 + refusals % 2)], timeout=10)
        if _is_broken(answer):  # refusals open the circuit breaker for a moment
            time.sleep(0.2)
            continue
        assert answer.status_code == 401, answer.text
        refusals += 1
    assert refusals == 12


def test_the_port_between_sidecars_speaks_only_mtls(project):
    """Plain text and a TLS client without a certificate of this Sentry get nothing."""
    port = project.app("flights").dapr_internal_grpc_port
    with socket.create_connection(("127.0.0.1", port), timeout=5) as raw:
        raw.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        raw.settimeout(5)
        assert raw.recv(1024) in (b"", b"\x15\x03\x01\x00\x02\x02F", b"\x15\x03\x01\x00\x02\x02\x46")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), timeout=5) as raw, pytest.raises(OSError, match=r".*"):
        _exchange(context, raw)


def _exchange(context, raw):
    with context.wrap_socket(raw) as tls:
        tls.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        if not tls.recv(1024):
            raise OSError("closed")


def test_nothing_listens_beyond_this_machine(system, project):
    """Every port of the system is on 127.0.0.1; sentry's health port is the one that can't be bound."""
    from sidecard.cli import processes

    for process in processes.marked(project.mark):
        for connection in process.net_connections("inet"):
            if connection.status == "LISTEN" and connection.laddr.port != 8390:
                assert connection.laddr.ip.removeprefix("::ffff:") == "127.0.0.1", (
                    f"{process.name()} listens on {connection.laddr}"
                )


def test_the_registry_lists_every_agent_verified(project, tokens):
    """All four agents with a verified card, and the MCP server."""
    listed = {entry["app_id"]: entry for entry in through(project, tokens, "desk", "registry", "agents", "GET").json()}
    assert set(listed) == {"orchestrator", "flights", "expenses", "compliance", "vendors"}
    assert all(entry["verified_at"] for app, entry in listed.items() if app != "vendors")
