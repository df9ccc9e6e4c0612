"""Plays gRPC through a gateway by grpcio: `serve` is the service, `run ADDRESS` the client. The messages are bytes.

`run` prints one JSON object: by case, what the client saw.
"""

import json
import sys
import threading
import time
from concurrent import futures

import grpc


def service(context_log):
    def unary(request, context):
        return request

    def many(request, context):
        for index in range(int(request)):
            yield b"%d" % index

    def collect(requests, context):
        return b"".join(requests)

    def chat(requests, context):
        for request in requests:
            yield request

    def fail(request, context):
        context.set_trailing_metadata((("x-why", "trailer"), ("x-why-bin", b"\x00\xff")))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "caf\u00e9 %")

    def late_fail(request, context):
        yield b"first"
        context.abort(grpc.StatusCode.DATA_LOSS, "lost")

    def slow(request, context):
        context.add_callback(lambda: context_log.append(time.monotonic()))
        time.sleep(3)
        return b"late"

    def drip(request, context):
        ended = threading.Event()
        context.add_callback(ended.set)
        yield b"first"
        ended.wait(5)
        context_log.append(time.monotonic())

    def cancelled(request, context):
        return b"%d" % len(context_log)

    def metadata(request, context):
        pairs = dict(context.invocation_metadata())
        context.send_initial_metadata((("x-head", pairs.get("x-a", "")),))
        context.set_trailing_metadata((("x-tail", "t" * 2000), ("x-bin-bin", pairs.get("x-b-bin", b""))))
        return json.dumps({k: v for k, v in pairs.items() if isinstance(v, str)}).encode()

    methods = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Many": grpc.unary_stream_rpc_method_handler(many),
        "Collect": grpc.stream_unary_rpc_method_handler(collect),
        "Chat": grpc.stream_stream_rpc_method_handler(chat),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "LateFail": grpc.unary_stream_rpc_method_handler(late_fail),
        "Slow": grpc.unary_unary_rpc_method_handler(slow),
        "Drip": grpc.unary_stream_rpc_method_handler(drip),
        "Cancelled": grpc.unary_unary_rpc_method_handler(cancelled),
        "Metadata": grpc.unary_unary_rpc_method_handler(metadata),
    }
    return grpc.method_handlers_generic_handler("test.Echo", methods)


def serve():
    options = [("grpc.max_receive_message_length", 16 << 20), ("grpc.max_metadata_size", 32 << 10)]
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16), options=options)
    server.add_generic_rpc_handlers((service([]),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


def told(error):
    trailing = {k: v for k, v in (error.trailing_metadata() or ()) if isinstance(v, str)}
    return {"code": error.code().name, "details": error.details(), "trailing": trailing}


def run(address):
    options = [("grpc.max_receive_message_length", 16 << 20), ("grpc.max_metadata_size", 32 << 10)]
    channel = grpc.insecure_channel(address, options=options)
    path = lambda name: f"/test.Echo/{name}"
    seen = {}

    unary = channel.unary_unary(path("Unary"))
    seen["unary"] = [unary(b"x" * size, timeout=20) == b"x" * size for size in (0, 1, 100, 70_000, 3_000_000)]
    seen["server_stream"] = [m.decode() for m in channel.unary_stream(path("Many"))(b"200", timeout=20)] == [
        str(n) for n in range(200)
    ]
    parts = [b"%d" % n for n in range(200)]
    seen["client_stream"] = channel.stream_unary(path("Collect"))(iter(parts), timeout=20) == b"".join(parts)

    def questions(answered):
        for n in range(20):
            yield b"%d" % n
            # Each answer comes before the next question: nothing on the way may wait for more.
            if not answered[n].wait(5):
                return

    answered = [threading.Event() for _ in range(20)]
    answers = []
    for answer in channel.stream_stream(path("Chat"))(questions(answered), timeout=20):
        answers.append(answer.decode())
        answered[len(answers) - 1].set()
    seen["chat"] = answers == [str(n) for n in range(20)]

    for case, method in (("fail", "Fail"), ("unknown", "Nothing")):
        try:
            channel.unary_unary(path(method))(b"", timeout=20)
        except grpc.RpcError as error:
            seen[case] = told(error)
    got = []
    try:
        for message in channel.unary_stream(path("LateFail"))(b"", timeout=20):
            got.append(message.decode())
    except grpc.RpcError as error:
        seen["late_fail"] = dict(told(error), got=got)
    began = time.monotonic()
    try:
        channel.unary_unary(path("Slow"))(b"", timeout=0.4)
    except grpc.RpcError as error:
        seen["deadline"] = dict(told(error), took=time.monotonic() - began)

    call = channel.unary_stream(path("Drip"))(b"", timeout=20)
    next(call)
    before = int(channel.unary_unary(path("Cancelled"))(b"", timeout=20))
    call.cancel()
    for _ in range(100):
        if int(channel.unary_unary(path("Cancelled"))(b"", timeout=20)) > before:
            seen["cancel"] = True
            break
        time.sleep(0.02)

    metadata = (("x-a", "a" * 8000), ("x-b-bin", bytes(range(256))))
    answer, call = channel.unary_unary(path("Metadata")).with_call(b"", metadata=metadata, timeout=20)
    trailing = dict(call.trailing_metadata())
    seen["metadata"] = [
        json.loads(answer)["x-a"] == "a" * 8000,
        dict(call.initial_metadata())["x-head"] == "a" * 8000,
        trailing["x-tail"] == "t" * 2000,
        trailing["x-bin-bin"] == bytes(range(256)),
    ]
    print(json.dumps(seen))


if __name__ == "__main__":
    serve() if sys.argv[1] == "serve" else run(sys.argv[2])
