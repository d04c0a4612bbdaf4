"""A shop for swaps on FastAPI: `python fastapi_app.py --emulator`, or `--help`.

PUT /orders/{id} starts a swap, GET /orders/{id} says how far it is, and page.html uses both.
A request never waits for a swap: a task follows each to its end, woken by the webhook, or by
looking where there is none. What is known stands in the database; pages ask only there.
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
from aifaceswap import AIFaceSwapError, AsyncClient, Swap, SwapFailedError, WebhookEvent
from aifaceswap.webhooks import WebhookApp
from shop import REFUSED, Order, Orders, explain, log

PAGE = Path(__file__).with_name("page.html")


class Shop:
    """One client for the whole app, its orders, and the tasks that follow them."""

    def __init__(self, settings: demo.Settings) -> None:
        self.webhook_url = settings.webhook_url
        self.orders = Orders(settings.database)
        self.client = AsyncClient(settings.api_key, base_url=settings.base_url)
        # A customer waits for this one: rather "come back in 3 s" than a pile of requests.
        self.quick = self.client.with_options(deadline=10, max_wait=0.5)
        # In a rotation: keys=[new, old].
        self.hook = WebhookApp(self.ended, keys=[settings.api_key], client=self.client)

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Open for as long as the app runs; what was under way before is followed on."""
        async with self.client, anyio.create_task_group() as self.followers:
            for swap_id in self.orders.under_way():
                self.followers.start_soon(self.follow, swap_id)
            yield
            self.followers.cancel_scope.cancel()

    async def begin(self, order: Order) -> Order:
        """Create an order's swap, once: its key was stored before."""
        if order.swap_id is not None:
            return order
        try:
            swap = await self.quick.swaps.create(
                source_url=order.source_url,
                target_url=order.target_url,
                webhook_url=order.webhook_url,
                idempotency_key=order.idempotency_key,
            )
        except REFUSED:
            self.orders.forget(order)
            raise
        self.followers.start_soon(self.follow, swap)
        return self.orders.created(order, swap)

    async def follow(self, swap: Swap | str) -> None:
        """See a swap to its end. All waits share their looks, and a delivery ends them."""
        try:
            swap = await self.client.swaps.wait(swap, timeout=None, on_update=self.orders.saw)
            self.orders.saw(swap)
        except SwapFailedError as error:
            self.orders.saw(error.swap)
        except Exception:  # one order must not end the others; the next start follows it on
            log.exception("lost sight of %s", swap)

    def ended(self, event: WebhookEvent) -> None:
        """Note what a delivery says; the service waits for the answer."""
        self.orders.saw(event.swap)


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
    """The page; it is the same for everyone."""
    return FileResponse(PAGE)


# A form of another site cannot send PUT or JSON: that keeps forged requests out.
@router.put("/orders/{order_id}", status_code=202)
async def put_order(order_id: str, pictures: Pictures, shop: Here) -> dict[str, Any]:
    """Start a swap. To send the same again is safe."""
    urls = pictures.source_url, pictures.target_url
    order = shop.orders.place(order_id, *urls, shop.webhook_url)
    return (await shop.begin(order)).public()


@router.get("/orders/{order_id}")
async def get_order(order_id: str, shop: Here) -> dict[str, Any]:
    """How far it is."""
    order = shop.orders.get(order_id)
    if order is None:
        raise HTTPException(404, "There is no such order.")
    return order.public()


async def on_error(_: Request, error: AIFaceSwapError) -> JSONResponse:
    """What the service or the client refuses."""
    answer = explain(error)
    return JSONResponse(answer.public(), answer.status, answer.headers)


async def on_invalid(_: Request, error: RequestValidationError) -> JSONResponse:
    """What is no JSON, or lacks a field."""
    fault = error.errors()[0]
    field = next((name for name in reversed(fault["loc"]) if isinstance(name, str)), "body")
    return JSONResponse({"error": f"{field}: {fault['msg']}", "field": field}, 400)


def create_app(settings: demo.Settings) -> FastAPI:
    """The app."""
    shop = Shop(settings)
    # A route, not a mount: that would redirect a path without a slash at its end.
    app = FastAPI(lifespan=shop.lifespan, routes=[Route("/hooks/swap", shop.hook)])
    app.state.shop = shop
    app.include_router(router)
    app.exception_handler(AIFaceSwapError)(on_error)
    app.exception_handler(RequestValidationError)(on_invalid)
    return app


if __name__ == "__main__":
    with demo.start() as (settings, sock):
        config = uvicorn.Config(create_app(settings), log_level="warning")
        uvicorn.Server(config).run(sockets=[sock])
