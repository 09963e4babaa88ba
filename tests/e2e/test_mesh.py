"""What the running mesh shows of itself. Who gets through it, and who does not: tests/security/test_mesh.py."""

import time

import httpx


def _is_broken(answer) -> bool:
    """Whether the caller's own circuit breaker answers, open or letting one request through to try."""
    return answer.status_code == 500 and ("circuit breaker" in answer.text or "too many requests" in answer.text)


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
    url = f"http://127.0.0.1:{project.app('desk').dapr_http_port}/v1.0/invoke/registry/method/agents"
    answer = httpx.get(url, headers={"dapr-api-token": tokens("desk")["DAPR_API_TOKEN"]}, timeout=10)
    listed = {entry["app_id"]: entry for entry in answer.json()}
    assert set(listed) == {"orchestrator", "flights", "expenses", "compliance", "vendors"}
    assert all(entry["verified_at"] for app, entry in listed.items() if app != "vendors")
