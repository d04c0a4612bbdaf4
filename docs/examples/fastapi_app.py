"""A shop for swaps on FastAPI: `python fastapi_app.py --emulator`, or `--help`.

PUT /orders/{id} starts a swap, GET /orders/{id} shows its progress, and page.html uses both.
A request never waits for a swap: a task waits for each, and a webhook delivery or a shared poll
ends the wait. Pages read the database only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import anyio
import uvicorn
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from pydantic import BaseModel
from starlette.routing import Route

import demo
from aifaceswap import (
    AIFaceSwapError,
    AsyncClient,
    InvalidRequestError,
    Swap,
    SwapFailedError,
    WebhookEvent,
)
from aifaceswap.webhooks import WebhookApp
from shop import REJECTED, Order, Orders, explain, log

PAGE = Path(__file__).with_name("page.html")


class Shop:
    """One client for the app, its orders, and the tasks that follow them."""

    def __init__(self, settings: demo.Settings) -> None:
        self.webhook_url = settings.webhook_url
        self.orders = Orders(settings.database)
        self.client = AsyncClient(settings.api_key, base_url=settings.base_url)
        # Customers wait for this one: "try again in 3 s" is better than a queue of requests.
        self.quick = self.client.with_options(deadline=10, max_wait=0.5)
        # During a key rotation: keys=[new, old].
        self.hook = WebhookApp(self.ended, keys=[settings.api_key], client=self.client)

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Open while the app runs; waits for swaps from before the restart continue."""
        async with self.client, anyio.create_task_group() as self.followers:
            for swap_id in self.orders.in_progress():
                self.followers.start_soon(self.follow, swap_id)
            yield
            self.followers.cancel_scope.cancel()

    async def begin(self, order: Order) -> Order:
        """Create an order's swap, once: the idempotency key is already stored."""
        if order.swap_id is not None:
            return order
        try:
            swap = await self.quick.swaps.create(
                source_url=order.source_url,
                target_url=order.target_url,
                webhook_url=order.webhook_url,
                idempotency_key=order.idempotency_key,
            )
        except REJECTED:
            self.orders.forget(order)
            raise
        self.followers.start_soon(self.follow, swap)
        return self.orders.created(order, swap)

    async def follow(self, swap: Swap | str) -> None:
        """Wait for a swap. All waits share their polls, and a webhook delivery ends them."""
        try:
            swap = await self.client.swaps.wait(swap, timeout=None, on_update=self.orders.update)
            self.orders.update(swap)
        except SwapFailedError as error:
            self.orders.update(error.swap)
        except Exception:  # one order must not end the others; the next start continues
            log.exception("stopped waiting for %s", swap)

    def ended(self, event: WebhookEvent) -> None:
        """Store the result of a delivery; the service waits for the response."""
        self.orders.update(event.swap)


class Pictures(BaseModel):
    """What a customer sends."""

    source_url: str
    target_url: str


def get_shop(request: Request) -> Shop:
    """The app's shop, for its endpoints."""
    shop: Shop = request.app.state.shop
    return shop


Here = Annotated[Shop, Depends(get_shop)]
router = APIRouter()


@router.get("/")
async def show_page() -> FileResponse:
    """The page, the same for everyone."""
    return FileResponse(PAGE)


# A form on another site cannot send PUT or JSON: this rejects forged requests.
@router.put("/orders/{order_id}", status_code=202)
async def put_order(order_id: str, pictures: Pictures, shop: Here) -> dict[str, Any]:
    """Start a swap. Sending the same order again is safe."""
    urls = pictures.source_url, pictures.target_url
    order = shop.orders.place(order_id, *urls, shop.webhook_url)
    return (await shop.begin(order)).public()


@router.get("/orders/{order_id}")
async def get_order(order_id: str, shop: Here) -> dict[str, Any]:
    """Show the progress."""
    order = shop.orders.get(order_id)
    if order is None:
        raise HTTPException(404, "There is no such order.")
    return order.public()


async def on_error(_: Request, error: AIFaceSwapError) -> JSONResponse:
    """Turn errors of the client and the service into responses."""
    problem = explain(error)
    return JSONResponse(problem.public(), problem.status, problem.headers)


async def on_invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    """Reject bodies that are not JSON or lack a field."""
    first = error.errors()[0]
    field = next((name for name in reversed(first["loc"]) if isinstance(name, str)), "body")
    return await on_error(request, InvalidRequestError(f"{field}: {first['msg']}", field=field))


def create_app(settings: demo.Settings) -> FastAPI:
    """The app."""
    shop = Shop(settings)
    # A route, not a mount: a mount redirects a path without a trailing slash.
    app = FastAPI(lifespan=shop.lifespan, routes=[Route("/hooks/swap", shop.hook)])
    app.state.shop = shop
    app.include_router(router)
    app.exception_handler(AIFaceSwapError)(on_error)
    app.exception_handler(RequestValidationError)(on_invalid)
    return app


if __name__ == "__main__":
    with demo.start() as (settings, sock):
        config = uvicorn.Config(
            create_app(settings), log_level="warning", timeout_graceful_shutdown=5
        )
        uvicorn.Server(config).run(sockets=[sock])
