"""The cases of Autobahn, run by kosoku, and a service for them to be run against.

    websocket.py echo              prints the port that it listens on, and gives back each message
    websocket.py run HOST:PORT     prints the verdicts as JSON: { case: [behaviour, close] }
"""

import asyncio
import json
import sys

# Of compression one case of each kind: each of the rest is the same with longer messages.
CASES = ["[1-9].*", "10.*", *(f"12.{n}.1" for n in range(1, 6)), *(f"13.{n}.1" for n in range(1, 8))]


async def echo():
    from websockets.asyncio.server import serve
    from websockets.exceptions import ConnectionClosed

    async def give_back(socket):
        try:
            async for message in socket:
                await socket.send(message)
        except ConnectionClosed:
            pass

    async with serve(give_back, "127.0.0.1", 0, max_size=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().create_future()


async def run(address):
    from kosoku import FailureError, run_fuzzingclient

    try:
        results = await run_fuzzingclient(address, CASES, None, concurrency=8)
    except FailureError as failure:
        results = failure.results
    print(json.dumps({result.case_id: [result.behavior.value, result.behavior_close.value] for result in results}))


asyncio.run(echo() if sys.argv[1] == "echo" else run(sys.argv[2]))
