#!/usr/bin/env python3
"""Checks captured export bodies: tempo-*.bin (OTLP protobuf) and loki-*.json (Loki push), uncompressed.

Prints what they hold as one JSON object; exits 1 at the first wrong one and names the file and the problem.
"""

import argparse
import json
import pathlib
import re
import sys

from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
TIMESTAMP = re.compile(r"[0-9]{19}")


class Wrong(Exception):
    pass


def require(condition, problem):
    if not condition:
        raise Wrong(problem)


# Tempo


def check_fields(message, path):
    """Nothing in the message, at any level, that the published schema does not know."""
    for field in UnknownFieldSet(message):
        raise Wrong(f"{path}: unknown field {field.field_number} of wire type {field.wire_type}")
    for field, value in message.ListFields():
        here = f"{path}.{field.name}"
        # Indices into a table that only profiles have.
        require(not field.name.endswith("_strindex"), f"{here} is for profiles only")
        values = value if field.is_repeated else [value]
        for i, one in enumerate(values):
            at = f"{here}[{i}]" if field.is_repeated else here
            if field.message_type is not None:
                check_fields(one, at)
            elif field.enum_type is not None:
                require(one in field.enum_type.values_by_number, f"{at}: {one} is no {field.enum_type.name}")


def check_id(value, size, path):
    require(len(value) == size, f"{path} has {len(value)} bytes, not {size}")
    require(any(value), f"{path} is all zero")


def service_of(resource, path):
    names = [one.value for one in resource.attributes if one.key == "service.name"]
    require(names, f"{path}: the resource has no service.name")
    require(len(names) == 1, f"{path}: the resource has several service.name")
    require(names[0].WhichOneof("value") == "string_value", f"{path}: service.name is no string")
    require(names[0].string_value, f"{path}: service.name is empty")
    return names[0].string_value


def check_span(span, path):
    check_id(span.trace_id, 16, f"{path}.trace_id")
    check_id(span.span_id, 8, f"{path}.span_id")
    if span.parent_span_id:
        check_id(span.parent_span_id, 8, f"{path}.parent_span_id")
    require(span.start_time_unix_nano > 0, f"{path} has no start")
    require(
        span.start_time_unix_nano <= span.end_time_unix_nano,
        f"{path} starts at {span.start_time_unix_nano}, after its end at {span.end_time_unix_nano}",
    )
    for i, link in enumerate(span.links):
        check_id(link.trace_id, 16, f"{path}.links[{i}].trace_id")
        check_id(link.span_id, 8, f"{path}.links[{i}].span_id")


def tempo_spans(data):
    try:
        request = ExportTraceServiceRequest.FromString(data)
    except DecodeError as error:
        raise Wrong(f"no ExportTraceServiceRequest: {error}") from None
    check_fields(request, "request")
    size = len(request.SerializeToString())
    require(size == len(data), f"has {len(data)} bytes, but {size} when encoded again")
    found = []
    for i, group in enumerate(request.resource_spans):
        path = f"resource_spans[{i}]"
        service = service_of(group.resource, path)
        for j, scope in enumerate(group.scope_spans):
            for k, span in enumerate(scope.spans):
                check_span(span, f"{path}.scope_spans[{j}].spans[{k}]")
                found.append(
                    {
                        "trace_id": span.trace_id.hex(),
                        "span_id": span.span_id.hex(),
                        "service": service,
                        "name": span.name,
                    }
                )
    require(found, "has no span")
    return found


# Loki


def unique(pairs):
    names = [name for name, _ in pairs]
    for name in names:
        require(names.count(name) == 1, f"the name {name!r} comes twice in one object")
    return dict(pairs)


def no_constant(text):
    raise Wrong(f"{text} is not JSON")


def check_string(value, path):
    require(isinstance(value, str), f"{path} is no string: {json.dumps(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Wrong(f"{path} holds half of a surrogate pair") from None


def check_object(value, names, path):
    require(isinstance(value, dict), f"{path} is no object")
    for name in names:
        require(name in value, f"{path} has no {name!r}")
    for name in value:
        require(name in names, f"{path} has {name!r}, which is not documented")


def check_entry(entry, path):
    require(isinstance(entry, list), f"{path} is no array")
    require(len(entry) in (2, 3), f"{path} has {len(entry)} elements, not 2 or 3")
    check_string(entry[0], f"{path}[0]")
    require(TIMESTAMP.fullmatch(entry[0]), f"{path}[0] is no time in nanoseconds of 19 digits: {entry[0]!r}")
    check_string(entry[1], f"{path}[1]")
    if len(entry) == 3:
        require(isinstance(entry[2], dict), f"{path}[2] is no object")
        for name, value in entry[2].items():
            require(name, f"{path}[2] has an empty name")
            check_string(name, f"a name in {path}[2]")
            check_string(value, f"{path}[2].{name}")


def loki_logs(data):
    try:
        push = json.loads(data.decode(), object_pairs_hook=unique, parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        raise Wrong(f"no JSON: {error}") from None
    check_object(push, ["streams"], "push")
    require(isinstance(push["streams"], list), "streams is no array")
    found = []
    for i, stream in enumerate(push["streams"]):
        path = f"streams[{i}]"
        check_object(stream, ["stream", "values"], path)
        labels = stream["stream"]
        require(isinstance(labels, dict), f"{path}.stream is no object")
        require(labels, f"{path} has no label")
        for name, value in labels.items():
            require(LABEL_NAME.fullmatch(name), f"{path}: {name!r} is no label name")
            check_string(value, f"{path}.stream.{name}")
        require(isinstance(stream["values"], list), f"{path}.values is no array")
        require(stream["values"], f"{path} has no entry")
        for j, entry in enumerate(stream["values"]):
            check_entry(entry, f"{path}.values[{j}]")
            metadata = entry[2] if len(entry) == 3 else {}
            both = {**metadata, **labels}
            found.append(
                {
                    "service": both.get("service_name", both.get("service")),
                    "trace_id": both.get("trace_id"),
                    "line": entry[1],
                    "ts": entry[0],
                }
            )
    require(found, "has no entry")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=pathlib.Path)
    directory = parser.parse_args().directory
    result = {"tempo_bodies": 0, "spans": [], "loki_bodies": 0, "logs": []}
    kinds = [("tempo-*.bin", tempo_spans, "tempo_bodies", "spans"), ("loki-*.json", loki_logs, "loki_bodies", "logs")]
    for pattern, read, bodies, items in kinds:
        for path in sorted(directory.glob(pattern)):
            try:
                result[items] += read(path.read_bytes())
            except Wrong as wrong:
                sys.exit(f"{path.name}: {wrong}")
            result[bodies] += 1
    if result["tempo_bodies"] + result["loki_bodies"] == 0:
        sys.exit(f"{directory}: no tempo-*.bin and no loki-*.json")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
