"""gRPC through a gateway, with the published package on both sides, and without generated code.

    grpc_calls.py server PORT     serves until it is ended
    grpc_calls.py client TARGET   makes calls of every kind and prints a line for each
"""
import sys
import threading
import time
from concurrent import futures

import grpc

SERVICE = "muster.Echo"
PLAIN = (lambda data: data, lambda data: data)


def unary(request, context):
    if request == b"fail":
        context.set_trailing_metadata((("why", "asked-for"),))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as asked")
    if request == b"slow":
        time.sleep(5)
    context.send_initial_metadata((("first", "1"),))
    context.set_trailing_metadata((("last", "2"),))
    return request


def stream_out(request, context):
    for number in range(int(request)):
        yield b"%d" % number


def stream_in(requests, context):
    return b"%d" % sum(len(request) for request in requests)


def both(requests, context):
    for request in requests:
        yield request


def serve(port):
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary, *PLAIN),
        "Out": grpc.unary_stream_rpc_method_handler(stream_out, *PLAIN),
        "In": grpc.stream_unary_rpc_method_handler(stream_in, *PLAIN),
        "Both": grpc.stream_stream_rpc_method_handler(both, *PLAIN),
    }
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


def outcome(call):
    try:
        return call()
    except grpc.RpcError as error:
        return error.code().name


def client(target):
    channel = grpc.insecure_channel(target)
    name = lambda method: f"/{SERVICE}/{method}"
    one = channel.unary_unary(name("Unary"), *PLAIN)
    answer, call = one.with_call(b"hello", timeout=10)
    first, last = dict(call.initial_metadata()).get("first"), dict(call.trailing_metadata()).get("last")
    print("unary", answer.decode(), first, last)
    try:
        one(b"fail", timeout=10)
    except grpc.RpcError as error:
        print("fail", error.code().name, error.details(), dict(error.trailing_metadata()).get("why"))
    print("large", len(one(b"x" * 3_000_000, timeout=20)))
    print("out", sum(1 for _ in channel.unary_stream(name("Out"), *PLAIN)(b"1000", timeout=10)))
    print("in", channel.stream_unary(name("In"), *PLAIN)(iter([b"abc"] * 100), timeout=10).decode())
    turn = threading.Semaphore(1)
    seen = []

    def ask():
        for number in range(20):
            turn.acquire()
            yield b"%d" % number

    for answer in channel.stream_stream(name("Both"), *PLAIN)(ask(), timeout=10):
        seen.append(answer)
        turn.release()
    print("both", len(seen), seen[-1].decode())
    print("deadline", outcome(lambda: one(b"slow", timeout=0.5)))
    print("unknown", outcome(lambda: channel.unary_unary("/muster.Echo/None", *PLAIN)(b"", timeout=5)))
    print("elsewhere", outcome(lambda: channel.unary_unary("/nowhere.Service/None", *PLAIN)(b"", timeout=5)))
    with futures.ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda n: one(b"%d" % n, timeout=20), range(500)))
    print("many", sum(int(answer) for answer in answers))


if sys.argv[1] == "server":
    serve(sys.argv[2])
else:
    client(sys.argv[2])
