"""A local OTLP receiver, for the demo and the tests: keeps the newest spans in memory, on 127.0.0.1.

Speaks OTLP/HTTP with protobuf, on one URL for the Python apps and for daprd, from the same variables
(`Collector.environment`).
"""

import threading
import zlib
from collections import defaultdict, deque
from collections.abc import Collection, Iterable, Iterator
from http import HTTPStatus

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

from demo.local_server import LocalServer, Request
from demo.trace_tree import Span, missing, trees

MAX_BODY = 16 * 1_024 * 1_024
"""Bytes of one export, before and after decompression; senders' batches hold some 512 spans, far below."""

_KINDS = {2: "server", 3: "client", 4: "producer", 5: "consumer"}


class Collector(LocalServer):
    """Receives from construction to `close`; what it has received stays readable.

    Args:
        port: 0 for a free one.
        max_spans: How many are kept; the oldest go first.
    """

    def __init__(self, port: int = 0, max_spans: int = 20_000) -> None:
        self._spans: deque[Span] = deque(maxlen=max_spans)
        self._metrics: defaultdict[str, set[str]] = defaultdict(set)
        self._arrived = threading.Condition()
        super().__init__(port)

    def environment(self) -> dict[str, str]:
        """The variables that make the Python apps and daprd export here, soon after a span has ended.

        For the process that starts them all: `dapr run -f` hands its own environment to every app and daprd.
        """
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.url,  # no path and no slash at the end, or daprd can't parse it
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

    def respond(self, request: Request) -> None:
        """Take an export."""
        status, answer = self._received(request)
        request.answer(status, "application/x-protobuf", answer)

    def _received(self, request: Request) -> tuple[HTTPStatus, bytes]:
        receivers = {"/v1/traces": self._receive_spans, "/v1/metrics": self._receive_metrics}
        receive = receivers.get(request.path)
        length = request.headers.get("Content-Length", "")
        if not length.isdecimal() or len(length) > len(str(MAX_BODY)) or int(length) > MAX_BODY:
            request.close_connection = True  # the body stays unread
            return HTTPStatus.REQUEST_ENTITY_TOO_LARGE if length else HTTPStatus.LENGTH_REQUIRED, b""
        body = request.rfile.read(int(length))
        if receive is None:
            return HTTPStatus.NOT_FOUND, b""
        if request.headers.get_content_type() != "application/x-protobuf":
            return HTTPStatus.UNSUPPORTED_MEDIA_TYPE, b""
        try:
            if request.headers.get("Content-Encoding") == "gzip":
                body = _decompress(body)
            return HTTPStatus.OK, receive(body)
        except (DecodeError, ValueError, EOFError, OSError, zlib.error):
            return HTTPStatus.BAD_REQUEST, b""

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
