"""A shop for swaps on aiohttp.web: `python aiohttp_app.py --emulator`, or `--help`.

PUT /orders/{id} starts a swap, GET /orders/{id} says how far it is, and page.html uses both.
A request never waits for a swap: a task follows each to its end, woken by the webhook, or by
looking where there is none. What is known stands in the database; pages ask only there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import anyio
from aiohttp import web

import demo
from aifaceswap import AIFaceSwapError, AsyncClient, InvalidRequestError, Swap, SwapFailedError
from aifaceswap.webhooks import aiohttp_handler
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

    async def lifespan(self, _: web.Application) -> AsyncIterator[None]:
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


SHOP = web.AppKey("shop", Shop)
routes = web.RouteTableDef()


@routes.get("/")
async def show_page(_: web.Request) -> web.FileResponse:
    """The page; it is the same for everyone."""
    return web.FileResponse(PAGE)


# A form of another site cannot send PUT: that keeps forged requests out.
@routes.put("/orders/{id}")
async def put_order(request: web.Request) -> web.Response:
    """Start a swap. To send the same again is safe."""
    shop = request.app[SHOP]
    source_url, target_url = await read_pictures(request)
    order = shop.orders.place(request.match_info["id"], source_url, target_url, shop.webhook_url)
    return web.json_response((await shop.begin(order)).public(), status=202)


@routes.get("/orders/{id}")
async def get_order(request: web.Request) -> web.Response:
    """How far it is."""
    order = request.app[SHOP].orders.get(request.match_info["id"])
    if order is None:
        return web.json_response({"error": "There is no such order."}, status=404)
    return web.json_response(order.public())


async def read_pictures(request: web.Request) -> tuple[str, str]:
    """What a customer has sent; what is wrong with the URLs is found later."""
    try:
        body = await request.json()
        return body["source_url"], body["target_url"]
    except KeyError as error:
        field = error.args[0]
        raise InvalidRequestError(f"{field}: it is missing", field=field) from None
    except (ValueError, TypeError, RecursionError):
        text = "body: it is no JSON object with source_url and target_url"
        raise InvalidRequestError(text, field="body") from None


@web.middleware
async def answer_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """What the service or the client refuses."""
    try:
        return await handler(request)
    except AIFaceSwapError as error:
        answer = explain(error)
        return web.json_response(answer.public(), status=answer.status, headers=answer.headers)


def create_app(settings: demo.Settings) -> web.Application:
    """The app."""
    shop = Shop(settings)
    # A delivery is noted and answered at once. In a rotation: keys=[new, old].
    hook = aiohttp_handler(
        lambda event: shop.orders.saw(event.swap), keys=[settings.api_key], client=shop.client
    )
    app = web.Application(middlewares=[answer_errors], client_max_size=64 * 1024)
    app[SHOP] = shop
    app.cleanup_ctx.append(shop.lifespan)
    app.add_routes(routes)
    app.router.add_post("/hooks/swap", hook)
    return app


if __name__ == "__main__":
    with demo.start() as (settings, sock):
        web.run_app(create_app(settings), sock=sock, print=None, shutdown_timeout=5)
