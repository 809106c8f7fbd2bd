#!/usr/bin/env python3
"""Sends traces and logs with the official OpenTelemetry SDK, unchanged, over OTLP/HTTP with protobuf.

Every trace goes through all services in order; each service has providers of its own, as if it were a process.
Prints what was sent as one JSON object; exits 1 when anything did not arrive.
"""

import argparse
import json
import logging
import os
import sys
import threading
import urllib.parse

# Settings of the caller's environment must not change what is sent.
for name in [name for name in os.environ if name.startswith("OTEL_")]:
    del os.environ[name]

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator


class Counts:
    """What the exporters reported, from every processor's thread."""

    def __init__(self):
        self.lock = threading.Lock()
        self.failures = 0
        self.delivered = 0

    def note(self, success, items):
        with self.lock:
            if success:
                self.delivered += items
            else:
                self.failures += 1

    def counting(self, exporter, interface, success):
        """The official exporter behind the SDK's own interface, with its results counted.

        The processors drop the results, and the SDK's log filter hides repeated messages: neither tells how many failed.
        """
        counts = self

        class Counting(interface):
            def export(self, batch):
                try:
                    result = exporter.export(batch)
                except Exception:
                    counts.note(False, len(batch))
                    raise
                counts.note(result is success, len(batch))
                return result

            def shutdown(self):
                exporter.shutdown()

            def force_flush(self, timeout_millis=30000):
                return exporter.force_flush(timeout_millis)

        return Counting()


class Service:
    def __init__(self, name, endpoint, compression, counts, items):
        self.name = name
        resource = Resource.create(
            {"service.name": name, "host.name": f"host-{name}", "service.instance.id": f"{name}-1"}
        )
        size = max(2048, items)
        spans = OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces", compression=compression)
        self.tracer_provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(
            BatchSpanProcessor(counts.counting(spans, SpanExporter, SpanExportResult.SUCCESS), max_queue_size=size)
        )
        logs = OTLPLogExporter(endpoint=f"{endpoint}/v1/logs", compression=compression)
        self.logger_provider = LoggerProvider(resource=resource, shutdown_on_exit=False)
        self.logger_provider.add_log_record_processor(
            BatchLogRecordProcessor(
                counts.counting(logs, LogRecordExporter, LogRecordExportResult.SUCCESS), max_queue_size=size
            )
        )
        self.tracer = self.tracer_provider.get_tracer("muster.tests", "1")
        self.logger = logging.getLogger(f"shop.{name}")
        self.logger.setLevel(logging.INFO)
        self.logger.propagate = False
        self.logger.addHandler(LoggingHandler(level=logging.INFO, logger_provider=self.logger_provider))

    def work(self, order, failing):
        """The child span of the last service, which fails in every third trace."""
        with self.tracer.start_as_current_span(f"{self.name}.work", kind=trace.SpanKind.INTERNAL) as span:
            span.set_attribute("order.id", order)
            self.logger.info("work on order %d", order, extra={"order.id": order})
            try:
                if failing:
                    raise RuntimeError(f"order {order} was declined")
                self.logger.info("order %d is done", order, extra={"order.id": order})
            except RuntimeError as error:
                span.record_exception(error)
                span.set_status(trace.Status(trace.StatusCode.ERROR, str(error)))
                self.logger.error("order %d failed", order, exc_info=True, extra={"order.id": order})

    def handle(self, headers, rest, order, failing):
        """One request as a server sees it: all it knows of the caller is in the headers."""
        # The context of the caller is current in this thread too; a server in another process would not have it.
        context = propagate.extract(headers, context=Context())
        with self.tracer.start_as_current_span(
            f"POST /{self.name}", context=context, kind=trace.SpanKind.SERVER
        ) as span:
            span.set_attribute("http.request.method", "POST")
            span.set_attribute("order.id", order)
            self.logger.info("order %d came in", order, extra={"order.id": order})
            if rest:
                onward = {}
                propagate.inject(onward)
                rest[0].handle(onward, rest[1:], order, failing)
            else:
                self.work(order, failing)
            span.set_attribute("http.response.status_code", 500 if failing else 200)
            self.logger.info("order %d was answered", order, extra={"order.id": order})
            return span

    def close(self):
        """How many of the two providers could not flush."""
        flushed = [self.tracer_provider.force_flush(), self.logger_provider.force_flush()]
        self.tracer_provider.shutdown()
        self.logger_provider.shutdown()
        return flushed.count(False)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("endpoint", help="base URL, such as http://127.0.0.1:4318")
    parser.add_argument("--traces", type=int, default=3, metavar="N")
    parser.add_argument("--compression", choices=["gzip", "none"], default="none")
    parser.add_argument("--services", default="cart,checkout,payment", metavar="A,B,C")
    arguments = parser.parse_args()
    names = [name for name in arguments.services.split(",") if name]
    if not names or len(set(names)) != len(names):
        parser.error("--services wants different names, separated by commas")
    # A proxy of the caller's environment must not stand between.
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = urllib.parse.urlsplit(arguments.endpoint).hostname or "*"

    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(name)s: %(message)s")
    propagate.set_global_textmap(TraceContextTextMapPropagator())
    counts = Counts()
    compression = Compression.Gzip if arguments.compression == "gzip" else Compression.NoCompression
    endpoint = arguments.endpoint.rstrip("/")
    services = [Service(name, endpoint, compression, counts, 4 * arguments.traces) for name in names]

    spans = len(services) + 1
    traces = []
    for order in range(1, arguments.traces + 1):
        failing = order % 3 == 0
        root = services[0].handle({}, services[1:], order, failing)
        traces.append(
            {
                "trace_id": trace.format_trace_id(root.get_span_context().trace_id),
                "services": names,
                "spans": spans,
                "logs": 2 * spans,
                "error": failing,
                "root": root.name,
            }
        )
    not_flushed = sum(service.close() for service in services)
    print(json.dumps({"traces": traces, "export_failures": counts.failures}))
    made = sum(one["spans"] + one["logs"] for one in traces)
    if counts.failures or not_flushed or counts.delivered != made:
        sys.exit(
            f"sdk_sender: {counts.failures} exports failed, {not_flushed} providers were not flushed, "
            f"{counts.delivered} of {made} spans and logs were delivered"
        )


if __name__ == "__main__":
    main()
