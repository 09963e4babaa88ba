"""OpenTelemetry in one place: traces that travel over every hop, spans and metrics exported by OTLP when asked for.

Without an endpoint nothing is recorded and an app is not instrumented: the caller's W3C trace context is handed on
unchanged, so that it arrives behind us and the spans of those who do record stay joined.
"""

import atexit
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics, propagate, trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

if TYPE_CHECKING:
    # `sidecard/__init__.py` imports this module first, so it must cost next to nothing: what is heavy is imported
    # where it is used.
    import grpc
    import httpx
    from fastapi import FastAPI
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider
    from starlette.types import ASGIApp, Receive, Scope, Send

# The only use of the environment outside settings: these switches have no other form. The first is read when
# `a2a.utils.telemetry` is imported, so this must run before any module of `a2a.client` or `a2a.server` is; the second
# at the first instrumentation. Who sets them keeps their choice.
os.environ.setdefault("OTEL_INSTRUMENTATION_A2A_SDK_ENABLED", "false")  # else some 110 spans per request
os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")  # the stable names for HTTP spans and metrics

QUIET_PATHS = r"/healthz$,/readyz$,/\.well-known/agent-card\.json$,/dapr/"
"""Requests that get no span: they belong to nobody's task. Regular expressions, by comma. (`/dapr/`: daprd asking.)"""

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1_800, 3_600, 21_600, 86_400)
"""Bucket bounds of task durations: a look-up takes milliseconds, an approval a day."""

_W3C = TraceContextTextMapPropagator()
_tracer = trace.get_tracer("sidecard")


class Telemetry:
    """One process's tracing and metrics. Built by `configure`; tests hand in providers of their own."""

    def __init__(
        self, tracer_provider: "TracerProvider | None" = None, meter_provider: "MeterProvider | None" = None
    ) -> None:
        self.tracer_provider = tracer_provider
        self.meter_provider = meter_provider
        self._stopped = False

    @property
    def recording(self) -> bool:
        """Whether spans are recorded here; otherwise trace context is only handed on."""
        return self.tracer_provider is not None

    def instrument_app(self, app: "FastAPI") -> None:
        """Let `app` continue its callers' traces, with one server span per request but for probes and the card.

        Call it last: what is added to the app afterwards runs outside of the trace.
        """
        if self.recording:
            from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

            FastAPIInstrumentor.instrument_app(
                app,
                tracer_provider=self.tracer_provider,
                meter_provider=self.meter_provider,
                excluded_urls=QUIET_PATHS,
                exclude_spans=["receive", "send"],  # one each per chunk of a stream
            )
        else:
            app.add_middleware(_CarryTrace)

    def instrument_client(self, client: "httpx.AsyncClient") -> None:
        """Send the current trace along with every request of `client`, with one client span each.

        Works for any transport. Clients that share a transport object must not both be instrumented: the
        instrumentation wraps the transport, and each request would get two spans.
        """
        if self.recording:
            from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor

            HTTPXClientInstrumentor.instrument_client(
                client, tracer_provider=self.tracer_provider, meter_provider=self.meter_provider
            )
        else:
            client.event_hooks["request"].append(_send_trace)

    def grpc_interceptors(self) -> "list[grpc.aio.ServerInterceptor[Any, Any]]":
        """What to hand to `grpc.aio.server(interceptors=…)`: continues callers' traces; health checks get no span."""
        from opentelemetry.instrumentation.grpc import aio_server_interceptor, filters

        chosen = filters.negate(filters.health_check())
        return [aio_server_interceptor(tracer_provider=self.tracer_provider, filter_=chosen)]  # type: ignore[no-untyped-call]

    def shutdown(self, seconds: float = 3.0) -> None:
        """Export what is waiting, then stop; gives up after `seconds`, so that a dead endpoint holds up no exit.

        Blocks: on an event loop, call it by `asyncio.to_thread`. Further calls do nothing.
        """
        if self._stopped:
            return
        self._stopped = True
        # The SDK waits 30 s for an exporter that keeps retrying, and offers no other time.
        stopping = [
            threading.Thread(target=provider.shutdown, daemon=True)
            for provider in (self.tracer_provider, self.meter_provider)
            if provider
        ]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join(seconds)


def configure(service_name: str, *, otlp_endpoint: str | None) -> Telemetry:
    """Set up this process's telemetry, once, before any span or metric is made.

    Args:
        service_name: The app-id: resource attribute `service.name`, as Dapr names its sidecar.
        otlp_endpoint: Base URL of an OTLP/HTTP receiver, `http://127.0.0.1:4318`; `/v1/traces` and `/v1/metrics` are
            added. None or empty: nothing is recorded. All else (headers, sampler, delays, certificates) is read by
            the SDK from OpenTelemetry's own variables.
    """
    # Not baggage: it would carry a caller's values past the trust boundary, and daprd refuses what it can't parse.
    propagate.set_global_textmap(_W3C)
    if not otlp_endpoint:
        return Telemetry()
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    base = otlp_endpoint.rstrip("/")
    resource = Resource.create({"service.name": service_name})
    tracer_provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    tracer_provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{base}/v1/traces")))
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(f"{base}/v1/metrics"))
    meter_provider = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
    trace.set_tracer_provider(tracer_provider)
    metrics.set_meter_provider(meter_provider)
    telemetry = Telemetry(tracer_provider, meter_provider)
    atexit.register(telemetry.shutdown)
    return telemetry


def current_traceparent() -> str:
    """The trace we are in as a W3C `traceparent`, to be stored with a task; empty when there is none."""
    carrier: dict[str, str] = {}
    _W3C.inject(carrier)
    return carrier.get("traceparent", "")


def current_trace_id() -> str:
    """The W3C id of the trace we are in, in hexadecimal; empty when there is none."""
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else ""


@contextmanager
def continue_trace(traceparent: str) -> Iterator[None]:
    """Make a stored `traceparent` the parent of what runs inside.

    What happens to be the current trace has no part in it. An empty or malformed one starts a new trace.
    """
    if not traceparent and not trace.get_current_span().get_span_context().is_valid:
        yield
        return
    token = attach(_W3C.extract({"traceparent": traceparent}, context=Context()))
    try:
        yield
    finally:
        detach(token)


@contextmanager
def span(name: str, **attributes: AttributeValue) -> Iterator[trace.Span]:
    """One span of our own, such as `task run book_flight`, failed by an exception (not by cancellation).

    Attributes are put into our namespace: `task_id` becomes `sidecard.task.id`.
    """
    if isinstance(_tracer, trace.ProxyTracer) and isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        # Nobody records anything here.
        yield trace.INVALID_SPAN
        return
    named = {f"sidecard.{key.replace('_', '.')}": value for key, value in attributes.items()}
    with _tracer.start_as_current_span(name, attributes=named) as current:
        yield current


def note(name: str, **attributes: AttributeValue) -> None:
    """An event in the current span, if somebody records it."""
    trace.get_current_span().add_event(name, attributes)


class TaskMetrics:
    """What is counted of one agent's tasks. States are A2A's names, `TASK_STATE_FAILED` or `failed`."""

    def __init__(self, agent: str, meter: metrics.Meter | None = None) -> None:
        meter = meter or metrics.get_meter("sidecard")
        self._agent = agent
        self._duration = meter.create_histogram(
            "sidecard.task.duration",
            unit="s",
            description="Time from a task's creation to its end.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self._transitions = meter.create_counter(
            "sidecard.task.transitions", unit="{transition}", description="Changes of a task's state."
        )
        self._failures = meter.create_counter(
            "sidecard.task.failures", unit="{task}", description="Tasks that ended failed."
        )

    def transition(self, skill: str, old: str, new: str) -> None:
        """Count one committed change of state; `old` is empty for a new task."""
        self._transitions.add(1, {"agent": self._agent, "skill": skill, "from": _state(old), "to": _state(new)})

    def ended(self, skill: str, state: str, seconds: float, *, reason: str = "error") -> None:
        """Record that a task reached its terminal state, `seconds` after its creation.

        `reason` is counted for failed tasks only: one of a few fixed words (each is a time series), never a message.
        """
        labels = {"agent": self._agent, "skill": skill}
        self._duration.record(seconds, {**labels, "state": _state(state)})
        if _state(state) == "failed":
            self._failures.add(1, {**labels, "reason": reason})


class WebhookMetrics:
    """What is counted of one agent's push notifications."""

    def __init__(self, agent: str, meter: metrics.Meter | None = None) -> None:
        meter = meter or metrics.get_meter("sidecard")
        self._agent = agent
        self._deliveries = meter.create_counter(
            "sidecard.webhook.deliveries", unit="{attempt}", description="Attempts to deliver a push notification."
        )
        self._delay = meter.create_histogram(
            "sidecard.webhook.delay",
            unit="s",
            description="Time from an event's commit to its delivery.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )

    def delivered(self, seconds: float) -> None:
        """Count a delivery, so long after its event was stored."""
        self._deliveries.add(1, {"agent": self._agent, "outcome": "delivered"})
        self._delay.record(max(0.0, seconds), {"agent": self._agent})

    def failed(self, outcome: str) -> None:
        """Count an attempt that failed: `failed` is tried again; `gone` and `dead` are the webhook's end."""
        self._deliveries.add(1, {"agent": self._agent, "outcome": outcome})


class ScreeningMetrics:
    """What is counted of one agent's content inspection."""

    def __init__(self, agent: str, meter: metrics.Meter | None = None) -> None:
        meter = meter or metrics.get_meter("sidecard")
        self._agent = agent
        self._decisions = meter.create_counter(
            "sidecard.screening.decisions", unit="{finding}", description="Findings in messages, by what was decided."
        )

    def decided(self, direction: str, kind: str, action: str, count: int) -> None:
        """Count findings of one sort that were decided in one way."""
        labels = {"agent": self._agent, "direction": direction, "kind": kind, "action": action}
        self._decisions.add(count, labels)


class _CarryTrace:
    """ASGI middleware that only hands trace context on, at a third of what the instrumentation costs when idle."""

    def __init__(self, app: "ASGIApp") -> None:
        self._app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        carrier = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in scope.get("headers", ())
            if name in {b"traceparent", b"tracestate"}
        }
        if not carrier:
            return await self._app(scope, receive, send)
        token = attach(_W3C.extract(carrier, context=Context()))
        try:
            await self._app(scope, receive, send)
        finally:
            detach(token)


async def _send_trace(request: "httpx.Request") -> None:
    _W3C.inject(request.headers)


def _state(name: str) -> str:
    return name.lower().removeprefix("task_state_")
