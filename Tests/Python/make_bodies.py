#!/usr/bin/env python3
"""Writes OTLP request bodies, made with the published message classes, for another reader to be checked against.

For every case NN in DIR: traces-NN.bin, traces-NN.json, logs-NN.bin, logs-NN.json and expected-NN.json, which says
what must be read from either form. The same bytes every time.
"""

import argparse
import base64
import copy
import json
import math
import pathlib
import random

from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

START = 1_760_000_000_123_456_789
dice = random.Random(20240229)


# Building


def ident(size):
    """Random bytes that are not zero and start with one from 0x80, so that hex and base64 cannot be mistaken."""
    return bytes([dice.randrange(0x80, 0x100)]) + dice.randbytes(size - 1)


def value(of):
    if of is None:
        return AnyValue()
    if isinstance(of, AnyValue):
        return of
    if isinstance(of, bool):
        return AnyValue(bool_value=of)
    if isinstance(of, int):
        return AnyValue(int_value=of)
    if isinstance(of, float):
        return AnyValue(double_value=of)
    if isinstance(of, str):
        return AnyValue(string_value=of)
    if isinstance(of, bytes):
        return AnyValue(bytes_value=of)
    if isinstance(of, list):
        return AnyValue(array_value=ArrayValue(values=[value(one) for one in of]))
    return AnyValue(kvlist_value=KeyValueList(values=attributes(of)))


def attributes(of):
    return [KeyValue(key=key, value=value(one)) for key, one in of.items()]


class Case:
    def __init__(self, title):
        self.title = title
        self.traces = ExportTraceServiceRequest()
        self.logs = ExportLogsServiceRequest()
        self.time = START
        # How the JSON form may differ without a difference in meaning.
        self.upper_case_ids = False
        self.defaults_written = False
        # Bytes that stand for the same messages in another way.
        self.traces_bytes = None
        self.logs_bytes = None

    def resource(self, service="cart", **more):
        of = {} if service is None else {"service.name": service}
        for group in (self.traces.resource_spans.add(), self.logs.resource_logs.add()):
            group.resource.attributes.extend(attributes({**of, **more}))
        return self

    def scope(self, name="muster.tests", version="1.2.3", **more):
        for scope in (self.traces.resource_spans[-1].scope_spans.add(), self.logs.resource_logs[-1].scope_logs.add()):
            scope.scope.name = name
            scope.scope.version = version
            scope.scope.attributes.extend(attributes(more))
        return self

    def tick(self):
        self.time += dice.randrange(1, 5_000_000_000)
        return self.time

    def span(self, name="GET /cart", of=None, **fields):
        start = self.tick()
        own = {
            "trace_id": ident(16),
            "span_id": ident(8),
            "kind": Span.SPAN_KIND_SERVER,
            "start_time_unix_nano": start,
            "end_time_unix_nano": start + dice.randrange(1, 900_000_000),
        }
        span = Span(name=name, attributes=attributes(of or {}), **{**own, **fields})
        self.traces.resource_spans[-1].scope_spans[-1].spans.append(span)
        return self.traces.resource_spans[-1].scope_spans[-1].spans[-1]

    def log(self, body="came in", of=None, **fields):
        time = self.tick()
        own = {
            "time_unix_nano": time,
            "observed_time_unix_nano": time + dice.randrange(1, 1_000_000),
            "severity_number": 9,
            "severity_text": "INFO",
            "trace_id": ident(16),
            "span_id": ident(8),
        }
        record = self.logs.resource_logs[-1].scope_logs[-1].log_records.add(
            attributes=attributes(of or {}), **{**own, **fields}
        )
        if body is not NO_BODY:
            record.body.CopyFrom(value(body))
        return record


NO_BODY = object()

KINDS = {
    "string": "text",
    "true": True,
    "false": False,
    "int": 42,
    "zero": 0,
    "negative": -7,
    "large": 2**63 - 1,
    "largest negative": -(2**63),
    "over 53 bits": 2**53 + 1,
    "double": 0.1,
    "whole double": 3.0,
    "tiny": 5e-324,
    "huge": -1.7976931348623157e308,
    "negative zero": -0.0,
    "not a number": math.nan,
    "infinity": math.inf,
    "negative infinity": -math.inf,
    "array": ["a", 1, -2.5, False, None, b"\x00\xff", ["inner", ["innermost"]]],
    "empty array": [],
    "kvlist": {"a": 1, "b": {"c": ["d", {"e": None}], "f": {}}},
    "empty kvlist": {},
    "bytes": bytes(range(256)),
    "empty bytes": b"",
    "empty": None,
}


# The cases


def plain():
    case = Case("one span and one log").resource(**{"host.name": "host-1"}).scope()
    span = case.span(of={"http.request.method": "GET"})
    case.log(of={"order.id": 7}, trace_id=span.trace_id, span_id=span.span_id)
    return case


def any_values():
    case = Case("every kind of value").resource(**{f"resource {key}": one for key, one in KINDS.items()})
    case.scope(**{f"scope {key}": one for key, one in KINDS.items()})
    span = case.span(of=KINDS)
    span.attributes.add(key="no value at all")
    for key, body in KINDS.items():
        if not (isinstance(body, float) and not math.isfinite(body)):
            case.log(body, of={"kind": key, "same": body})
    case.log(NO_BODY, of={"kind": "no body"})
    return case


def events_and_links():
    case = Case("events and links with attributes").resource("checkout").scope()
    span = case.span(of={"order.id": 1})
    for i in range(3):
        span.events.add(
            time_unix_nano=case.tick(),
            name=["exception", "retry", ""][i],
            attributes=attributes({"exception.message": "declined", "try": i, "nested": KINDS["kvlist"]}),
            dropped_attributes_count=i,
        )
    for i in range(2):
        span.links.add(
            trace_id=ident(16),
            span_id=ident(8),
            trace_state=["", "vendor=1"][i],
            attributes=attributes({"link": i}),
            dropped_attributes_count=i * 300,
            flags=0x100 * i + 1,
        )
    case.span(name="without")
    case.log("event", event_name="order.declined", of={"order.id": 1})
    case.log({"what": "an event with a structured body", "amount": -12.5, "items": [1, 2]}, event_name="order.made")
    return case


def rare_fields():
    case = Case("trace state, flags, dropped counts, schema URLs, entity references").resource("payment").scope()
    for group in (case.traces.resource_spans[0], case.logs.resource_logs[0]):
        group.schema_url = "https://opentelemetry.io/schemas/1.30.0"
        group.resource.dropped_attributes_count = 3
        group.resource.entity_refs.add(
            schema_url="https://example.com/1", type="service", id_keys=["service.name"], description_keys=["a", "b"]
        )
    for scope in (case.traces.resource_spans[0].scope_spans[0], case.logs.resource_logs[0].scope_logs[0]):
        scope.schema_url = "https://opentelemetry.io/schemas/1.21.0"
        scope.scope.dropped_attributes_count = 2**32 - 1
    case.span(
        parent_span_id=ident(8),
        trace_state="rojo=00f067aa0ba902b7,congo=t61rcWkgMzE",
        flags=0x301,
        dropped_attributes_count=1,
        dropped_events_count=200,
        dropped_links_count=2**32 - 1,
    )
    case.span(flags=2**32 - 1)
    case.log(flags=1, dropped_attributes_count=70_000)
    return case


def no_resource():
    case = Case("no resource, an empty one, one without service.name, no scope")
    case.resource(None).scope("", "")
    case.span()
    case.log()
    for group in (case.traces.resource_spans[0], case.logs.resource_logs[0]):
        group.ClearField("resource")
    case.resource(None).scope()
    case.span()
    case.log()
    for group in (case.traces.resource_spans[1], case.logs.resource_logs[1]):
        group.resource.SetInParent()
    case.resource(None, **{"host.name": "host-1", "service.namespace": "shop"}).scope()
    for scope in (case.traces.resource_spans[2].scope_spans[0], case.logs.resource_logs[2].scope_logs[0]):
        scope.ClearField("scope")
    case.span()
    case.log()
    return case


def several():
    case = Case("several resources and scopes, one trace")
    trace_id, parent = ident(16), b""
    for service in ("cart", "checkout", "payment"):
        case.resource(service, **{"service.instance.id": f"{service}-1"})
        for library in ("http", "db"):
            case.scope(library, "0.1", library=True)
            for i in range(2):
                span = case.span(f"{library} {i}", {"i": i}, trace_id=trace_id, parent_span_id=parent)
                parent = span.span_id
                case.log(f"{service} {library} {i}", trace_id=trace_id, span_id=parent)
    return case


def empty_strings():
    case = Case("empty strings").resource("", **{"": ""}).scope("", "")
    case.span("", {"": "", "a": ""}, trace_state="", status=Status(message="", code=Status.STATUS_CODE_ERROR))
    case.log("", {"": ""}, severity_text="", event_name="")
    return case


def unicode():
    texts = [
        "Grüße, naïve Œuvre",
        "日本語とかな",
        "🛒👩‍👩‍👧‍👦🏳️‍🌈",
        "שלום مرحبا",
        "e\u0301 is not \u00e9",
        'quotes " \\ / and \b\f\n\r\t',
        "\x00\x01\x1f\x7f",
        "\u2028\u2029\ufeff\uffff\U0010ffff",
    ]
    case = Case("unicode").resource("Корзина-🛒").scope("область", "β")
    for i, text in enumerate(texts):
        case.span(text, {text: text, f"list {i}": [text]}, status=Status(message=text))
        case.log(text, {text: text}, severity_text=text)
    return case


def times():
    case = Case("times: none, only observed, equal, reversed, largest").resource().scope()
    case.span("equal", start_time_unix_nano=START, end_time_unix_nano=START)
    case.span("no end", end_time_unix_nano=0)
    case.span("none", start_time_unix_nano=0, end_time_unix_nano=0)
    case.span("reversed", start_time_unix_nano=START + 1, end_time_unix_nano=START)
    case.span("largest signed", start_time_unix_nano=1, end_time_unix_nano=2**63 - 1)
    case.log("only observed", time_unix_nano=0)
    case.log("only time", observed_time_unix_nano=0)
    case.log("neither", time_unix_nano=0, observed_time_unix_nano=0)
    case.log("largest signed", time_unix_nano=2**63 - 1)
    return case


def codes():
    case = Case("severity as text only or number only, all kinds and statuses").resource().scope()
    for kind in range(6):
        case.span(f"kind {kind}", kind=kind)
    for code in range(3):
        case.span(f"status {code}", status=Status(code=code, message=["", "fine", "declined"][code]))
    for text in ("ERROR", "warning", "Informational", ""):
        case.log(f"text {text}", severity_number=0, severity_text=text)
    for number in range(1, 25):
        case.log(f"number {number}", severity_number=number, severity_text="")
    return case


# A varint, 8 bytes, a string, 4 bytes and a group, under numbers that no message has and one of the largest possible.
UNKNOWN = (
    bytes([0xC0, 0x3E, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01])
    + bytes([0xC9, 0x3E, 1, 2, 3, 4, 5, 6, 7, 8])
    + bytes([0xD2, 0x3E, 5])
    + b"later"
    + bytes([0xDD, 0x3E, 1, 2, 3, 4])
    + bytes([0xE3, 0x3E, 0x08, 0x01, 0x12, 0x02, 0x61, 0x62, 0xE4, 0x3E])
    + bytes([0xF8, 0xFF, 0xFF, 0xFF, 0x0F, 0x00])
)


def add_unknown(message):
    for field, one in message.ListFields():
        if field.message_type is not None:
            for inner in one if field.is_repeated else [one]:
                add_unknown(inner)
    message.MergeFromString(UNKNOWN)


def unknown_fields():
    case = Case("unknown fields in every message (.bin only)").resource(deep={"a": [1]}).scope()
    span = case.span(of={"a": [1, {"b": 2}]}, status=Status(code=Status.STATUS_CODE_ERROR))
    span.events.add(time_unix_nano=case.tick(), name="event", attributes=attributes({"a": 1}))
    span.links.add(trace_id=ident(16), span_id=ident(8))
    case.log({"a": [1, {"b": 2}]}, {"a": "b"})
    for request in (case.traces, case.logs):
        add_unknown(request)
    return case


def empty():
    return Case("an empty request")


def empty_groups():
    case = Case("resources without scopes, scopes without records").resource("cart").resource("checkout").scope()
    case.resource("payment").scope()
    case.span()
    case.log()
    return case


def ids():
    case = Case("missing and odd identifiers; upper case hex in JSON").resource().scope()
    case.upper_case_ids = True
    trace_id = ident(16)
    case.span("root", trace_id=trace_id)
    case.span("leading zeros", trace_id=bytes(15) + b"\x0a", span_id=bytes(7) + b"\xab", parent_span_id=ident(8))
    case.span("all ones", trace_id=b"\xff" * 16, span_id=b"\xff" * 8)
    case.log("trace and span", trace_id=trace_id)
    case.log("trace only", trace_id=trace_id, span_id=b"")
    case.log("neither", trace_id=b"", span_id=b"")
    return case


def written_defaults():
    case = Case("fields at their default written out in JSON").resource().scope()
    case.defaults_written = True
    case.span(of={"a": 0, "b": False, "c": "", "d": [], "e": None})
    case.span("", kind=0, start_time_unix_nano=0, end_time_unix_nano=0)
    case.log("", {"a": 0.0})
    case.log(NO_BODY, severity_number=0, severity_text="", trace_id=b"", span_id=b"")
    return case


def large():
    case = Case("many records, long strings").resource("cart", **{"long": "x" * 20_000}).scope()
    words = ["cart", "order", "naïve", "支付", "Δt", "item", "\n", "\\", '"']
    for i in range(300):
        text = " ".join(dice.choices(words, k=dice.randrange(1, 40)))
        of = {f"key {j}": dice.choice([text, i, -i, i / 7, i % 2 == 0, [text, i]]) for j in range(i % 6)}
        case.span(text, of, kind=i % 6)
        case.log(text, of, severity_number=i % 25)
    case.log("y" * 70_000)
    return case


def deep():
    nested = "bottom"
    for i in range(20):
        nested = [nested] if i % 2 else {"in": nested}
    case = Case("values nested twenty deep").resource().scope()
    case.span(of={"deep": nested})
    case.log(nested, {"deep": nested})
    return case


def field(number, payload):
    """A length-delimited field whose length is a varint with more bytes than it needs."""
    size = len(payload)
    return bytes([number << 3 | 2, size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14 | 0x80, 0]) + payload


def other_bytes():
    """Scopes before the resource, the resource in two parts, overlong varints, zeros written, a field said twice."""
    case = Case("allowed but unusual encodings (.bin only)").resource("cart", a=1).scope()
    span = case.span(of={"b": 2})
    record = case.log(of={"b": 2})
    whole = ((case.traces, "traces_bytes", span, 10, 5), (case.logs, "logs_bytes", record, 7, 3))
    for request, name, leaf, dropped, text in whole:
        (group,) = request.ListFields()[0][1]
        scope = next(one[0] for descriptor, one in group.ListFields() if descriptor.name.startswith("scope_"))
        first, second = (one.SerializeToString() for one in group.resource.attributes)
        # Dropped count: a zero, written; name or severity text: a first one that the last one replaces.
        leaf_bytes = bytes([dropped << 3, 0x80, 0x00]) + field(text, b"replaced") + leaf.SerializeToString()
        scope_bytes = field(2, leaf_bytes) + field(1, scope.scope.SerializeToString())
        group_bytes = field(1, field(1, first)) + field(2, scope_bytes) + field(1, field(1, second))
        setattr(case, name, field(1, group_bytes))
    return case


CASES = [
    plain,
    any_values,
    events_and_links,
    rare_fields,
    no_resource,
    several,
    empty_strings,
    unicode,
    times,
    codes,
    unknown_fields,
    empty,
    empty_groups,
    ids,
    written_defaults,
    large,
    deep,
    other_bytes,
]


# JSON


def without_unknown(message):
    known = copy.deepcopy(message)
    known.DiscardUnknownFields()
    return known


def each_id(tree, change):
    """The identifiers in the JSON form of a request: attribute keys are values there, never names."""
    if isinstance(tree, list):
        return [each_id(one, change) for one in tree]
    if isinstance(tree, dict):
        return {
            name: change(one) if name in ("traceId", "spanId", "parentSpanId") else each_id(one, change)
            for name, one in tree.items()
        }
    return tree


def to_json(message, case):
    tree = json_format.MessageToDict(
        without_unknown(message),
        use_integers_for_enums=True,
        always_print_fields_with_no_presence=case.defaults_written,
    )

    def to_hex(text):
        digits = base64.b64decode(text).hex()
        return digits.upper() if case.upper_case_ids else digits

    return each_id(tree, to_hex)


def from_json(tree, kind):
    return json_format.ParseDict(each_id(tree, lambda text: base64.b64encode(bytes.fromhex(text)).decode()), kind())


# What must be read


def plain_value(of):
    kind = of.WhichOneof("value")
    if kind is None:
        return None
    one = getattr(of, kind)
    if kind == "array_value":
        return [plain_value(inner) for inner in one.values]
    if kind == "kvlist_value":
        return {inner.key: plain_value(inner.value) for inner in one.values}
    return base64.b64encode(one).decode() if kind == "bytes_value" else one


def service_of(group):
    for one in group.resource.attributes:
        if one.key == "service.name":
            return one.value.string_value
    return None


def expected_spans(request):
    return [
        {
            "trace_id": span.trace_id.hex(),
            "span_id": span.span_id.hex(),
            "parent_span_id": span.parent_span_id.hex(),
            "name": span.name,
            "kind": span.kind,
            "start": span.start_time_unix_nano,
            "end": span.end_time_unix_nano,
            "status_code": span.status.code,
            "service": service_of(group),
            "attribute_count": len(span.attributes),
            "event_count": len(span.events),
            "link_count": len(span.links),
        }
        for group in request.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]


def expected_logs(request):
    return [
        {
            "trace_id": record.trace_id.hex(),
            "span_id": record.span_id.hex(),
            "severity_number": record.severity_number,
            "severity_text": record.severity_text,
            # The data model: without a time of its own, the time at which the record was seen.
            "time": record.time_unix_nano or record.observed_time_unix_nano,
            "observed_time": record.observed_time_unix_nano,
            "body": plain_value(record.body),
            "body_kind": (record.body.WhichOneof("value") or "empty").removesuffix("_value"),
            "service": service_of(group),
            "attribute_count": len(record.attributes),
        }
        for group in request.resource_logs
        for scope in group.scope_logs
        for record in scope.log_records
    ]


def dump(path, tree, indent=None):
    text = json.dumps(tree, ensure_ascii=False, allow_nan=False, indent=indent)
    path.write_text(text + "\n" if indent else text, encoding="utf-8")


def write(directory, number, case):
    expected = {"title": case.title}
    signals = [
        ("traces", case.traces, case.traces_bytes, "spans", expected_spans),
        ("logs", case.logs, case.logs_bytes, "logs", expected_logs),
    ]
    for name, request, unusual, items, read in signals:
        data = unusual or request.SerializeToString(deterministic=True)
        tree = to_json(request, case)
        # The bytes and the JSON must mean the same to the published classes.
        known = without_unknown(request).SerializeToString(deterministic=True)
        for again in (type(request).FromString(data), from_json(tree, type(request))):
            assert without_unknown(again).SerializeToString(deterministic=True) == known, (case.title, name)
        (directory / f"{name}-{number:02}.bin").write_bytes(data)
        dump(directory / f"{name}-{number:02}.json", tree)
        expected[items] = read(request)
    dump(directory / f"expected-{number:02}.json", expected, indent=1)
    return len(expected["spans"]), len(expected["logs"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=pathlib.Path)
    directory = parser.parse_args().directory
    directory.mkdir(parents=True, exist_ok=True)
    counts = [write(directory, number, make()) for number, make in enumerate(CASES, 1)]
    spans, logs = (sum(column) for column in zip(*counts))
    print(json.dumps({"cases": len(counts), "spans": spans, "logs": logs}))


if __name__ == "__main__":
    main()
