"""The activity that a Dapr Workflow runs five times, against a small server; and what happens without Dapr Workflow."""

import contextlib
import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import SecretStr
from rich.console import Console
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from bench import __main__ as bench
from bench.report import TARGETS, Report
from bench.rounds import Rounds
from bench.workflow import Messenger
from sidecard.cli import runtime
from sidecard.errors import ConfigurationError
from sidecard.settings import Settings


@pytest.fixture
async def sidecar(listen):
    """A sidecar before the agent `ours`, whose task ends as `state` says; keeps what it was sent."""
    seen = SimpleNamespace(state="TASK_STATE_COMPLETED", messages=[], tokens=[])

    async def answer(request):
        seen.tokens.append(request.headers["dapr-api-token"])
        message = json.loads(await request.body())["params"]["message"]
        seen.messages.append(message)
        task = {"status": {"state": seen.state}, "artifacts": [{"parts": message["parts"]}]}
        return JSONResponse({"result": {"task": task}})

    path = "/v1.0/invoke/ours/method/a2a"
    seen.port = await listen(Starlette(routes=[Route(path, answer, methods=["POST"])]))
    return seen


async def test_an_activity_sends_a_message_and_gives_what_its_task_came_to(sidecar):
    """Through the own sidecar, under an id that is the same when the activity is repeated."""
    messenger = Messenger(Settings(app_id="workflow", dapr_http_port=sidecar.port, dapr_api_token=SecretStr("t")))
    context = SimpleNamespace(workflow_id="w", task_id=3)
    for _ in range(2):
        assert await messenger.send(context, "hello 3") == "hello 3"
    assert [message["messageId"] for message in sidecar.messages] == ["w-3", "w-3"]
    assert set(sidecar.tokens) == {"t"}


async def test_an_activity_whose_task_fails_fails(sidecar):
    """Or a system that only refuses would be fast."""
    sidecar.state = "TASK_STATE_FAILED"
    messenger = Messenger(Settings(app_id="workflow", dapr_http_port=sidecar.port, dapr_api_token=SecretStr("t")))
    with pytest.raises(RuntimeError, match="TASK_STATE_FAILED"):
        await messenger.send(SimpleNamespace(workflow_id="w", task_id=1), "hello")


def test_without_placement_and_scheduler_nothing_is_made_up(monkeypatch, tmp_path):
    """The run goes on, says what is missing, and has no figure."""

    def missing(*_):
        raise ConfigurationError("placement 1.18.2 is missing, and so is Go to build it")

    monkeypatch.setattr(runtime, "ensure", missing)
    monkeypatch.setattr(bench, "estate", lambda *_: contextlib.nullcontext())
    said = io.StringIO()
    report = Report(Console(file=said, width=200))
    bench.PARTS["orchestrations"](Path(tmp_path), bench.QUICK, Rounds(1), report)
    assert "Dapr Workflow is not measured: placement 1.18.2 is missing" in said.getvalue()
    assert report.results == {}
    assert "orchestrations_vs_workflow" in TARGETS
