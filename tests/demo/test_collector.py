"""The local receiver takes what real exporters send, and refuses the rest without falling over."""

import gzip
import http.client
import socket

import httpx
import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import SpanKind

from demo.collector import MAX_BODY, Collector

PROTOBUF = {"content-type": "application/x-protobuf"}


@pytest.fixture
def collector():
    with Collector(max_spans=10) as running:
        yield running


def tracer(collector, service="flights", compression=Compression.NoCompression):
    provider = TracerProvider(resource=Resource({"service.name": service}), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(f"{collector.url}/v1/traces", compression=compression)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider.get_tracer("sidecard")


@pytest.mark.parametrize("compression", [Compression.NoCompression, Compression.Gzip])
def test_takes_spans_of_a_real_exporter(collector, compression):
    """Service, name, kind, scope, parent, attributes and failure arrive as they were sent."""
    flights = tracer(collector, compression=compression)
    with (
        pytest.raises(RuntimeError),
        flights.start_as_current_span("outer", kind=SpanKind.SERVER, attributes={"http.route": "/a2a", "n": 3}),
        flights.start_as_current_span("inner"),
    ):
        raise RuntimeError("no seats")
    inner, outer = collector.spans()
    assert (outer.service, outer.name, outer.kind, outer.scope, outer.error) == (
        "flights", "outer", "server", "sidecard", True,
    )  # fmt: skip
    assert outer.attributes == {"http.route": "/a2a", "n": "3"}
    assert outer.parent_id == ""
    assert (inner.trace_id, inner.parent_id, inner.kind) == (outer.trace_id, outer.span_id, "internal")
    assert 0 < outer.start <= inner.start <= inner.end <= outer.end


def test_waits_until_the_trace_is_whole(collector):
    """A trace is handed over when every service is in it and no parent is missing."""
    user, flights = tracer(collector, "user"), tracer(collector, "flights")
    with user.start_as_current_span("trip") as root:
        trace_id = f"{root.get_span_context().trace_id:032x}"
        with flights.start_as_current_span("search"):
            pass
        assert len(collector.wait_for(trace_id, {"flights"}, seconds=0)) == 1
    spans = collector.wait_for(trace_id, {"user", "flights"}, seconds=5)
    assert {span.service for span in spans} == {"user", "flights"}


def test_gives_what_there_is_when_time_is_up(collector):
    """Waiting for a service that never answers ends."""
    assert collector.wait_for("f" * 32, {"vendors"}, seconds=0.01) == []


def test_keeps_the_newest(collector):
    """Memory is bounded: the oldest spans go first."""
    flights = tracer(collector)
    for number in range(15):
        flights.start_span(f"span {number}").end()
    assert [span.name for span in collector.spans()] == [f"span {number}" for number in range(5, 15)]


def test_takes_metrics(collector):
    """The names of the metrics that a service sends are kept."""
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(f"{collector.url}/v1/metrics"))
    provider = MeterProvider([reader], resource=Resource({"service.name": "flights"}), shutdown_on_exit=False)
    provider.get_meter("sidecard").create_counter("sidecard.task.transitions").add(1)
    provider.shutdown()
    assert collector.metrics() == {"flights": {"sidecard.task.transitions"}}


@pytest.mark.parametrize(
    ("path", "headers", "body", "status"),
    [
        ("/v1/traces", PROTOBUF, b"\xff\xff\xff", 400),
        ("/v1/traces", {**PROTOBUF, "content-encoding": "gzip"}, b"not gzip", 400),
        ("/v1/traces", {**PROTOBUF, "content-encoding": "gzip"}, gzip.compress(b"\0" * (MAX_BODY + 1)), 400),
        ("/v1/traces", {"content-type": "application/json"}, b"{}", 415),
        ("/v1/logs", PROTOBUF, b"", 404),
    ],
)
def test_refuses_what_it_does_not_speak(collector, path, headers, body, status):
    """Each bad export gets its HTTP status, and the next good one is taken."""
    with httpx.Client(base_url=collector.url, trust_env=False) as client:
        assert client.post(path, headers=headers, content=body).status_code == status
    tracer(collector).start_span("after").end()
    assert [span.name for span in collector.spans()] == ["after"]


@pytest.mark.parametrize(
    ("length", "status"), [(str(MAX_BODY + 1), 413), ("9" * 5000, 413), ("many", 413), ("-1", 413), (None, 411)]
)
def test_reads_no_body_of_unknown_or_excessive_length(collector, length, status):
    """A body that announces too much, or nothing sensible, is refused unread."""
    connection = http.client.HTTPConnection(collector.url.removeprefix("http://"), timeout=5)
    connection.putrequest("POST", "/v1/traces")
    if length:
        connection.putheader("Content-Length", length)
    connection.endheaders()
    assert connection.getresponse().status == status
    connection.close()


def test_frees_its_port():
    """After closing, nothing listens, and what was received can still be read."""
    with Collector() as collector:
        tracer(collector).start_span("kept").end()
    assert [span.name for span in collector.spans()] == ["kept"]
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(collector.url.rpartition(":")[2]))) != 0


def test_is_for_this_machine_only(collector):
    """Listens on loopback, and names variables that the Python SDK and daprd both read."""
    assert collector.url.startswith("http://127.0.0.1:")
    environment = collector.environment()
    assert environment["OTEL_EXPORTER_OTLP_ENDPOINT"] == collector.url
    assert environment["OTEL_EXPORTER_OTLP_PROTOCOL"] == "http/protobuf"
