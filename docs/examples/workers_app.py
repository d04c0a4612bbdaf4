"""A web app in four worker processes, with webhooks: `python workers_app.py --emulator`.

With your own Redis, key and public address (PUBLIC_URL=https://shop.example.com), one of these:
`gunicorn --worker-class asgi --workers 4 workers_app:app`,
`uvicorn --workers 4 workers_app:app`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel
from starlette.routing import Route

from aifaceswap import AsyncClient, RateLimitError, SwapFailedError, WaitTimeoutError, WebhookEvent
from aifaceswap.redis import RedisCoordinator
from aifaceswap.webhooks import WebhookApp

REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")
WEBHOOK_URL = os.environ.get("PUBLIC_URL", "https://shop.example.com") + "/hooks/swap"


async def finished(event: WebhookEvent) -> None:
    """Called once for each swap, in one of the workers: store the result here."""
    print(f"worker {os.getpid()}: {event.swap.id} is {event.swap.status}", flush=True)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the client of this worker process: after the fork."""
    key = os.environ["AIFACESWAP_API_KEY"]
    async with (
        RedisCoordinator(REDIS_URL) as shared,
        AsyncClient(key, coordinator=shared) as client,
    ):
        app.state.client = client
        # The service delivers to any worker. A wait ends in whichever worker waits.
        hook = WebhookApp(finished, key, client=client, seen=shared.seen())
        app.router.routes.append(Route("/hooks/swap", hook))
        yield


app = FastAPI(lifespan=lifespan)


def get_client(request: Request) -> AsyncClient:
    """The client of this worker, for its endpoints."""
    client: AsyncClient = request.app.state.client
    return client


Here = Annotated[AsyncClient, Depends(get_client)]


class Images(BaseModel):
    """What a customer sends."""

    source_url: str
    target_url: str


@app.put("/orders/{order_id}", status_code=202)
async def put_order(order_id: str, images: Images, client: Here) -> dict[str, Any]:
    """Start a swap. The same order sent again, to any worker, is the same swap."""
    key = f"order-{order_id}"
    try:
        # Ten swaps at once, counted over all workers. Customers do not wait long for their turn.
        async with client.swaps.slot(key, max_wait=2):
            swap = await client.swaps.create(
                source_url=images.source_url,
                target_url=images.target_url,
                webhook_url=WEBHOOK_URL,
                idempotency_key=key,
            )
    except RateLimitError as error:
        raise HTTPException(503, "Please try again in a moment.", {"Retry-After": "5"}) from error
    return {"swap": swap.id, "status": swap.status}


@app.get("/swaps/{swap_id}")
async def get_swap(swap_id: str, client: Here) -> dict[str, Any]:
    """Wait up to 20 seconds for a swap. The page asks again until it is finished."""
    try:
        swap = await client.swaps.wait(swap_id, timeout=20)
    except WaitTimeoutError:
        return {"swap": swap_id, "status": "processing"}
    except SwapFailedError as error:
        swap = error.swap
    return {"swap": swap.id, "status": swap.status, "result_url": swap.result_url}


def main() -> None:
    """Eight orders, each created by one worker and awaited by another."""
    import local_services  # noqa: PLC0415 - workers do without it

    port = local_services.free_port()
    url = f"http://127.0.0.1:{port}"
    servers = {
        "gunicorn": ("--worker-class=asgi", "--workers=4", f"--bind=127.0.0.1:{port}"),
        "uvicorn": ("--workers=4", f"--port={port}"),
    }
    with local_services.start(deliver_to=url, servers=list(servers)) as services:
        server = services.server
        with services.run("-m", server, "workers_app:app", "--log-level=warning", *servers[server]):
            local_services.wait_for(port)
            orders = local_services.place_orders(url, 8)
            services.emulator.settle_blocking()
        services.show(orders)


if __name__ == "__main__":
    main()
