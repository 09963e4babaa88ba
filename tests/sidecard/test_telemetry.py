"""Traces travel over every hop, recorded or not; tasks are measured; nothing of it holds up an exit."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import fastapi
import grpc
import httpx
import pytest
from opentelemetry import propagate, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from demo.collector import Collector
from sidecard.telemetry import (
    TaskMetrics,
    Telemetry,
    WebhookMetrics,
    configure,
    continue_trace,
    current_traceparent,
    span,
)

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
def recording(exporter, monkeypatch):
    """Telemetry that records into `exporter`, also what `span` makes."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr("sidecard.telemetry._tracer", provider.get_tracer("sidecard"))
    return Telemetry(provider)


@pytest.fixture(params=["recording", "handing on"])
def either(request):
    """Telemetry with and without an endpoint."""
    return request.getfixturevalue("recording") if request.param == "recording" else Telemetry()


class Mesh(httpx.AsyncBaseTransport):
    """A transport of our own, as the one that maps app-ids is: hands requests to apps, keeps what was sent."""

    def __init__(self, **apps):
        self._apps = {name: httpx.ASGITransport(app) for name, app in apps.items()}
        self.sent = []

    async def handle_async_request(self, request):
        self.sent.append(request)
        return await self._apps[request.url.host].handle_async_request(request)


def specialist(telemetry):
    """An app that answers with the trace it finds itself in."""
    app = fastapi.FastAPI()

    @app.post("/a2a")
    async def a2a():
        return current_traceparent()

    @app.get("/stream")
    async def stream():
        async def chunks():
            for _ in range(5):
                yield b"data: x\n\n"

        return fastapi.responses.StreamingResponse(chunks())

    @app.get("/healthz")
    @app.get("/readyz")
    @app.get("/.well-known/agent-card.json")
    async def quiet():
        return {}

    telemetry.instrument_app(app)
    return app


def orchestrator(telemetry, client):
    """An app that asks `flights`, inside a task run."""
    app = fastapi.FastAPI()

    @app.post("/a2a")
    async def a2a():
        with span("task run plan_trip"):
            return (await client.post("http://flights/a2a")).json()

    telemetry.instrument_app(app)
    return app


async def plan(telemetry, headers):
    """One request through orchestrator and flights; what flights answered, and what was sent to it."""
    mesh = Mesh(flights=specialist(telemetry))
    async with (
        httpx.AsyncClient(transport=mesh) as client,
        httpx.AsyncClient(transport=httpx.ASGITransport(orchestrator(telemetry, client))) as user,
    ):
        telemetry.instrument_client(client)
        answer = await user.post("http://orchestrator/a2a", headers=headers)
    return answer.json(), mesh.sent[0]


async def test_one_trace_over_apps_and_clients(either):
    """A request keeps its trace id over an app, a client with a transport of its own, and the next app."""
    inner, sent = await plan(either, {"traceparent": TRACEPARENT, "tracestate": "vendor=1"})
    assert inner.split("-")[1] == TRACE
    assert sent.headers["traceparent"].split("-")[1] == TRACE
    assert sent.headers["tracestate"] == "vendor=1"


async def test_each_hop_is_a_span_below_the_one_before(recording, exporter):
    """Server, task run, client, server: one span each, each the parent of the next."""
    await plan(recording, {"traceparent": TRACEPARENT})
    spans = sorted(exporter.get_finished_spans(), key=lambda one: one.start_time)
    assert [one.name for one in spans] == ["POST /a2a", "task run plan_trip", "POST", "POST /a2a"]
    parents = [f"{one.parent.span_id:016x}" for one in spans]
    assert parents == ["b7ad6b7169203331", *(f"{one.context.span_id:016x}" for one in spans[:-1])]


async def test_spans_bear_the_stable_names(recording, exporter):
    """HTTP spans follow the stable semantic conventions."""
    await plan(recording, {})
    client = next(one for one in exporter.get_finished_spans() if one.kind is trace.SpanKind.CLIENT)
    assert client.attributes["url.full"] == "http://flights/a2a"
    assert client.attributes["http.request.method"] == "POST"


async def test_without_an_endpoint_the_callers_context_passes_unchanged():
    """What does not record does not appear: the next hop sees the caller's own span as its parent."""
    inner, sent = await plan(Telemetry(), {"traceparent": TRACEPARENT})
    assert inner == sent.headers["traceparent"] == TRACEPARENT


async def test_without_an_endpoint_no_trace_is_begun():
    """Nobody's trace stays nobody's, so that whoever records next decides whether to."""
    inner, sent = await plan(Telemetry(), {})
    assert inner == ""
    assert "traceparent" not in sent.headers


@pytest.mark.parametrize("bad", ["", "00-0-0-01", f"00-{'0' * 32}-{'0' * 16}-01", "ü" * 40, "x" * 5_000])
async def test_a_malformed_traceparent_does_no_harm(either, bad):
    """A request with nonsense for a trace is served, in a trace of its own or in none."""
    inner, _ = await plan(either, {"traceparent": bad.encode()})
    assert TRACE not in inner


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/.well-known/agent-card.json"])
async def test_probes_and_card_get_no_span(recording, exporter, path):
    """What is asked all the time is not recorded."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(specialist(recording))) as user:
        assert (await user.get(f"http://flights{path}")).status_code == 200
    assert exporter.get_finished_spans() == ()


async def test_a_stream_is_one_span(recording, exporter):
    """Chunks get no spans of their own."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(specialist(recording))) as user:
        await user.get("http://flights/stream")
    assert [one.name for one in exporter.get_finished_spans()] == ["GET /stream"]


@pytest.mark.parametrize("streaming", [False, True])
async def test_grpc_continues_the_callers_trace(either, streaming):
    """A call on the gRPC port runs in the trace that its metadata names, streams too."""

    async def unary(request, context):
        return current_traceparent().encode()

    async def stream(request, context):
        yield current_traceparent().encode()

    handler = grpc.unary_stream_rpc_method_handler(stream) if streaming else grpc.unary_unary_rpc_method_handler(unary)
    server = grpc.aio.server(interceptors=either.grpc_interceptors())
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("a2a", {"Ask": handler})])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            ask = (channel.unary_stream if streaming else channel.unary_unary)("/a2a/Ask")
            call = ask(b"", metadata=[("traceparent", TRACEPARENT)])
            answer = await (call.read() if streaming else call)
    finally:
        await server.stop(None)
    assert answer.decode().split("-")[1] == TRACE


async def test_a_stored_trace_is_continued(recording, exporter):
    """A task that runs again, long after its request, runs in that request's trace, whoever woke it."""
    with span("request"):
        stored = current_traceparent()
    with span("heartbeat"), continue_trace(stored):
        with span("task run book_flight"):
            pass
        assert current_traceparent() == stored
    request, run, _ = exporter.get_finished_spans()
    assert (run.context.trace_id, run.parent.span_id) == (request.context.trace_id, request.context.span_id)


@pytest.mark.parametrize("stored", ["", "nonsense"])
async def test_without_a_stored_trace_a_new_one_begins(recording, exporter, stored):
    """A task without a trace does not join the trace of what happens to run it."""
    with span("heartbeat"), continue_trace(stored), span("task run book_flight"):
        pass
    run, _ = exporter.get_finished_spans()
    assert run.parent is None


def test_the_current_trace_comes_back():
    """After a continued trace the one before is current again, also after an exception."""
    with continue_trace(TRACEPARENT):
        with pytest.raises(ValueError, match="seats"), continue_trace(""):
            raise ValueError("no seats")
        assert current_traceparent() == TRACEPARENT
    assert current_traceparent() == ""


def test_a_span_of_our_own(recording, exporter):
    """Attributes are ours by name; an exception marks the span as failed and goes on."""
    with pytest.raises(ValueError, match="seats"), span("task run book_flight", task_id="t-1"):
        raise ValueError("no seats")
    (run,) = exporter.get_finished_spans()
    assert run.attributes == {"sidecard.task.id": "t-1"}
    assert run.status.status_code is StatusCode.ERROR


def test_cancellation_is_no_failure(recording, exporter):
    """A run that is cancelled or evicted has not failed."""
    with pytest.raises(asyncio.CancelledError), span("task run book_flight"):
        raise asyncio.CancelledError
    assert exporter.get_finished_spans()[0].status.status_code is StatusCode.UNSET


def measured(reader):
    """{metric: {attributes: value}} of what was recorded; a histogram's value is (count, sum)."""
    return {
        metric.name: {
            tuple(sorted(point.attributes.items())): (point.count, point.sum) if hasattr(point, "sum") else point.value
            for point in metric.data.data_points
        }
        for resource in reader.get_metrics_data().resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def test_deliveries_are_measured():
    """Attempts by outcome, and how long events took to be delivered."""
    reader = InMemoryMetricReader()
    webhooks = WebhookMetrics("flights", MeterProvider([reader], shutdown_on_exit=False).get_meter("sidecard"))
    webhooks.delivered(0.5)
    webhooks.failed("dead")
    agent = ("agent", "flights")
    assert measured(reader) == {
        "sidecard.webhook.deliveries": {(agent, ("outcome", "delivered")): 1, (agent, ("outcome", "dead")): 1},
        "sidecard.webhook.delay": {(agent,): (1, 0.5)},
    }


def test_tasks_are_measured():
    """Durations by skill and state, transitions by states, failures by reason; A2A's names or ours for states."""
    reader = InMemoryMetricReader()
    tasks = TaskMetrics("flights", MeterProvider([reader], shutdown_on_exit=False).get_meter("sidecard"))
    tasks.transition("book_flight", "", "TASK_STATE_SUBMITTED")
    tasks.transition("book_flight", "TASK_STATE_SUBMITTED", "working")
    tasks.ended("book_flight", "TASK_STATE_FAILED", 2.5, reason="outcome-unknown")
    tasks.ended("book_flight", "completed", 0.5)
    skill = (("agent", "flights"), ("skill", "book_flight"))
    assert measured(reader) == {
        "sidecard.task.duration": {
            (*skill, ("state", "failed")): (1, 2.5),
            (*skill, ("state", "completed")): (1, 0.5),
        },
        "sidecard.task.transitions": {
            (skill[0], ("from", ""), skill[1], ("to", "submitted")): 1,
            (skill[0], ("from", "submitted"), skill[1], ("to", "working")): 1,
        },
        "sidecard.task.failures": {(skill[0], ("reason", "outcome-unknown"), skill[1]): 1},
    }


def test_measuring_costs_nothing_without_an_endpoint():
    """Metrics can be taken when nothing is exported."""
    TaskMetrics("flights").ended("book_flight", "failed", 1.0)


def run(code, **environment):
    """Run `code` in a process of its own: telemetry is set up once in each."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, check=False, env=kept | environment, cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def test_configured_without_an_endpoint_nothing_is_recorded():
    """No endpoint, no recording; the propagation is W3C's trace context and no baggage."""
    before = propagate.get_global_textmap()
    try:
        assert not configure("flights", otlp_endpoint=None).recording
        assert not configure("flights", otlp_endpoint="").recording
        assert propagate.get_global_textmap().fields == {"traceparent", "tracestate"}
    finally:
        propagate.set_global_textmap(before)


def test_exports_to_the_endpoint_by_the_end_of_the_process():
    """Spans and metrics reach the endpoint under the service's name, also when nobody shuts telemetry down."""
    code = """
from sidecard.telemetry import TaskMetrics, configure, span
configure("flights", otlp_endpoint="ENDPOINT/")
with span("task run book_flight"):
    TaskMetrics("flights").ended("book_flight", "completed", 0.1)
"""
    with Collector() as collector:
        result = run(code.replace("ENDPOINT", collector.url))
    assert result.returncode == 0, result.stderr
    assert [(one.service, one.name) for one in collector.spans()] == [("flights", "task run book_flight")]
    assert collector.metrics() == {"flights": {"sidecard.task.duration"}}


def test_a_dead_endpoint_holds_up_no_exit():
    """Shutting down gives up in the time it was given, and may be repeated."""
    code = """
import socket, time
from sidecard.telemetry import configure, span
with socket.socket() as deaf:
    deaf.bind(("127.0.0.1", 0))
    deaf.listen()  # takes connections, answers nothing
    telemetry = configure("flights", otlp_endpoint=f"http://127.0.0.1:{deaf.getsockname()[1]}")
    with span("task run book_flight"):
        pass
    begin = time.monotonic()
    telemetry.shutdown(0.3)
    telemetry.shutdown()
    print(time.monotonic() - begin)
"""
    result = run(code)
    assert result.returncode == 0, result.stderr
    assert 0.3 <= float(result.stdout) < 3


@pytest.mark.parametrize(("asked", "enabled"), [(None, "False"), ("true", "True")])
def test_the_sdks_own_spans_are_off_unless_asked_for(asked, enabled):
    """Importing sidecard is enough to be rid of the A2A SDK's hundred spans per request; the user may want them."""
    environment = {"OTEL_INSTRUMENTATION_A2A_SDK_ENABLED": asked} if asked else {}
    result = run("import sidecard, a2a.utils.telemetry as t; print(t.otel_enabled)", **environment)
    assert result.stdout.strip() == enabled, result.stderr
