"""A shop for swaps on aiohttp.web: `python aiohttp_app.py --emulator`, or `--help`.

PUT /orders/{id} starts a swap, GET /orders/{id} shows its progress, and page.html uses both.
A request never waits for a swap: a task waits for each, and a webhook delivery or a shared poll
ends the wait. Pages read the database only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import anyio
from aiohttp import web

import demo
from aifaceswap import AIFaceSwapError, AsyncClient, InvalidRequestError, Swap, SwapFailedError
from aifaceswap.webhooks import aiohttp_handler
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

    async def lifespan(self, _: web.Application) -> AsyncIterator[None]:
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


SHOP = web.AppKey("shop", Shop)
routes = web.RouteTableDef()


@routes.get("/")
async def show_page(_: web.Request) -> web.FileResponse:
    """The page, the same for everyone."""
    return web.FileResponse(PAGE)


# A form on another site cannot send PUT: this rejects forged requests.
@routes.put("/orders/{id}")
async def put_order(request: web.Request) -> web.Response:
    """Start a swap. Sending the same order again is safe."""
    shop = request.app[SHOP]
    source_url, target_url = await read_pictures(request)
    order = shop.orders.place(request.match_info["id"], source_url, target_url, shop.webhook_url)
    return web.json_response((await shop.begin(order)).public(), status=202)


@routes.get("/orders/{id}")
async def get_order(request: web.Request) -> web.Response:
    """Show the progress."""
    order = request.app[SHOP].orders.get(request.match_info["id"])
    if order is None:
        return web.json_response({"error": "There is no such order."}, status=404)
    return web.json_response(order.public())


async def read_pictures(request: web.Request) -> tuple[str, str]:
    """Read what a customer sends; the URLs are checked later."""
    try:
        body = await request.json()
        return body["source_url"], body["target_url"]
    except KeyError as error:
        field = error.args[0]
        raise InvalidRequestError(f"{field} is missing", field=field) from None
    except (ValueError, TypeError, RecursionError):
        text = "The body must be a JSON object with source_url and target_url."
        raise InvalidRequestError(text, field="body") from None


@web.middleware
async def respond_to_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Turn errors of the client and the service into responses."""
    try:
        return await handler(request)
    except AIFaceSwapError as error:
        problem = explain(error)
        return web.json_response(problem.public(), status=problem.status, headers=problem.headers)


def create_app(settings: demo.Settings) -> web.Application:
    """The app."""
    shop = Shop(settings)
    # A delivery is stored and answered at once. During a key rotation: keys=[new, old].
    hook = aiohttp_handler(
        lambda event: shop.orders.update(event.swap), keys=[settings.api_key], client=shop.client
    )
    app = web.Application(middlewares=[respond_to_errors], client_max_size=64 * 1024)
    app[SHOP] = shop
    app.cleanup_ctx.append(shop.lifespan)
    app.add_routes(routes)
    app.router.add_post("/hooks/swap", hook)
    return app


if __name__ == "__main__":
    with demo.start() as (settings, sock):
        web.run_app(create_app(settings), sock=sock, print=None, shutdown_timeout=5)
