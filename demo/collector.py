"""A local OTLP receiver, for the demo and the tests: keeps the newest spans in memory, on 127.0.0.1.

Speaks OTLP/HTTP with protobuf, on one URL for the Python apps and for daprd, from the same variables
(`Collector.environment`).
"""

import sys
import threading
import zlib
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

from demo.trace_tree import Span, missing, trees

MAX_BODY = 16 * 1_024 * 1_024
"""Bytes of one export, before and after decompression; senders' batches hold some 512 spans, far below."""

_KINDS = {2: "server", 3: "client", 4: "producer", 5: "consumer"}


class Collector:
    """Receives from construction to `close`, in a background thread; a context manager.

    Args:
        port: 0 for a free one.
        max_spans: How many are kept; the oldest go first.
    """

    def __init__(self, port: int = 0, max_spans: int = 20_000) -> None:
        self._spans: deque[Span] = deque(maxlen=max_spans)
        self._metrics: defaultdict[str, set[str]] = defaultdict(set)
        self._arrived = threading.Condition()
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.collector = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="collector", daemon=True)
        self._thread.start()

    @property
    def endpoint(self) -> str:
        """What `OTEL_EXPORTER_OTLP_ENDPOINT` is to be: no path and no slash at the end, or daprd can't parse it."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def environment(self) -> dict[str, str]:
        """The variables that make the Python apps and daprd export here, soon after a span has ended.

        For the process that starts them all: `dapr run -f` hands its own environment to every app and daprd.
        """
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",  # daprd's default is gRPC
            "OTEL_BSP_SCHEDULE_DELAY": "300",  # milliseconds; both export every 5 s else
            "OTEL_METRIC_EXPORT_INTERVAL": "2000",  # milliseconds; once a minute else
        }

    def spans(self, trace_id: str = "") -> list[Span]:
        """What has been received, of one trace or of all."""
        with self._arrived:
            return [span for span in self._spans if trace_id in {"", span.trace_id}]

    def metrics(self) -> dict[str, set[str]]:
        """The names of the metrics each service has sent."""
        with self._arrived:
            return {service: set(names) for service, names in self._metrics.items()}

    def wait_for(self, trace_id: str, services: Collection[str] = (), seconds: float = 10.0) -> list[Span]:
        """The trace's spans, once it is whole: a span of each of `services`, one root, no parent missing.

        After `seconds`, those that are there; `missing` then says what is not.
        """

        def whole() -> bool:
            spans = self.spans(trace_id)
            return bool(spans) and not missing(spans, services) and len(trees(spans, trace_id)) == 1

        with self._arrived:
            self._arrived.wait_for(whole, seconds)
        return self.spans(trace_id)

    def close(self) -> None:
        """Stop receiving and free the port; what was received stays readable."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _receive_spans(self, body: bytes) -> bytes:
        request = ExportTraceServiceRequest.FromString(body)
        with self._arrived:
            self._spans.extend(_spans(request))
            self._arrived.notify_all()
        return ExportTraceServiceResponse().SerializeToString()

    def _receive_metrics(self, body: bytes) -> bytes:
        request = ExportMetricsServiceRequest.FromString(body)
        with self._arrived:
            for resource in request.resource_metrics:
                names = {metric.name for scope in resource.scope_metrics for metric in scope.metrics}
                self._metrics[_service(resource.resource.attributes)] |= names
            self._arrived.notify_all()
        return ExportMetricsServiceResponse().SerializeToString()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    collector: Collector

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a sender that was stopped; all else is a defect."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # senders keep their connections
    timeout = 60
    server: _Server

    def do_POST(self) -> None:
        collector = self.server.collector
        receivers = {"/v1/traces": collector._receive_spans, "/v1/metrics": collector._receive_metrics}
        receive = receivers.get(self.path)
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or len(length) > len(str(MAX_BODY)) or int(length) > MAX_BODY:
            self.close_connection = True  # the body stays unread
            return self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE if length else HTTPStatus.LENGTH_REQUIRED)
        body = self.rfile.read(int(length))
        if receive is None:
            return self._answer(HTTPStatus.NOT_FOUND)
        if self.headers.get_content_type() != "application/x-protobuf":
            return self._answer(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        try:
            if self.headers.get("Content-Encoding") == "gzip":
                body = _decompress(body)
            return self._answer(HTTPStatus.OK, receive(body))
        except (DecodeError, ValueError, EOFError, OSError, zlib.error):
            return self._answer(HTTPStatus.BAD_REQUEST)

    def _answer(self, status: HTTPStatus, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Stay quiet: the demo's terminal is for the demo."""


def _decompress(body: bytes) -> bytes:
    decompressor = zlib.decompressobj(zlib.MAX_WBITS | 16)  # 16: with gzip's header
    plain = decompressor.decompress(body, MAX_BODY)
    if not decompressor.eof:
        raise ValueError("truncated or too large")
    return plain


def _spans(request: ExportTraceServiceRequest) -> Iterator[Span]:
    for resource in request.resource_spans:
        service = _service(resource.resource.attributes)
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Span(
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    service=service,
                    name=span.name,
                    start=span.start_time_unix_nano,
                    end=span.end_time_unix_nano,
                    kind=_KINDS.get(span.kind, "internal"),
                    scope=scope.scope.name,
                    error=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
                    attributes={pair.key: _text(pair.value) for pair in span.attributes},
                )


def _service(attributes: Iterable[KeyValue]) -> str:
    return next((pair.value.string_value for pair in attributes if pair.key == "service.name"), "unknown")


def _text(value: AnyValue) -> str:
    field = value.WhichOneof("value")
    return str(getattr(value, field)) if field else ""
