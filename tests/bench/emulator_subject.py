"""What the emulator's benchmark has in processes of its own: `python -m bench.emulator_subject`.

`bare` serves what a bare aiohttp.web handler can, `many` an emulator with few swaps and one with
many. Both end with stdin.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys

from aiohttp import web

from aifaceswap.emulator import Emulator, Limits
from aifaceswap.emulator._service.api import Api
from aifaceswap.emulator._service.messages import ServerRequest
from aifaceswap.emulator._service.request_log import RequestLog
from bench.harness import SWAP, pin

FEW, MANY = 100, 100_000
_HEADERS = {"Authorization": "Bearer key_emulator", "Content-Type": "application/json"}


async def serve_bare() -> None:
    """Answer each creation with the bytes of an emulator's response."""
    api = _make_emulator()._frontend.api
    response = api.respond(_make_creation(0), 0.0)

    async def handle(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=response.status, headers=response.headers, body=response.body)

    app = web.Application()
    app.router.add_post("/api/v1/swaps", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}/api/v1", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


def serve_many() -> None:
    """Say as JSON what the many weigh in MiB, and the URLs of a hundred of each."""
    before = _peak()
    with _make_emulator() as many, _make_emulator() as few:
        urls = {"many": _fill(many, MANY), "few": _fill(few, FEW)}
        print(json.dumps({"mib": _peak(), "grown": _peak() - before, **urls}), flush=True)
        sys.stdin.read()


def _make_emulator() -> Emulator:
    return Emulator(limits=Limits(None, None, None), credits=1e9, duration=3600)


def _fill(emulator: Emulator, count: int) -> list[str]:
    api: Api = emulator._frontend.api
    now = emulator.clock.now()
    for number in range(count):
        api.respond(_make_creation(number), now)
    api.log = RequestLog()
    return [f"{emulator.base_url}/swaps/{swap.id}" for swap in api.state.swaps[:: count // FEW]]


def _make_creation(number: int) -> ServerRequest:
    # As they come over HTTP: with a key, and with strings that nothing else holds.
    body = {**SWAP, "source_url": f"https://example.com/face-{number}.jpg"}
    headers = {**_HEADERS, "Idempotency-Key": f"4b0f9a52-6a3c-4c0e-9d2c-{number:012d}"}
    return ServerRequest("POST", "/api/v1/swaps", "", headers, json.dumps(body).encode())


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    pin(json.loads(sys.argv[2]))
    if sys.argv[1] == "bare":
        asyncio.run(serve_bare())
    else:
        serve_many()
