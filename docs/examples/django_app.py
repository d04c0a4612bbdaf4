"""A shop for swaps on Django, with async views under ASGI: `python django_app.py --emulator`.

A form starts a swap, and its order's page shows the progress. A request never waits for a swap:
a task waits for each, and a webhook delivery or a shared poll ends the wait. Pages read the
database only.
"""

from __future__ import annotations

import os
import secrets
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import django
import uvicorn
from django.conf import settings as django_settings
from django.core.asgi import get_asgi_application
from django.core.handlers.asgi import ASGIRequest
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.urls import path
from django.views.decorators.http import require_POST, require_safe

import demo
from aifaceswap import AIFaceSwapError, AsyncClient, Swap, SwapFailedError, WebhookEvent
from aifaceswap.webhooks import WebhookApp
from shop import REJECTED, Order, Orders, explain, log


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
    async def lifespan(self) -> AsyncIterator[None]:
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


def get_shop(request: HttpRequest) -> Shop:
    """The app's shop, for its views: from the state that ASGI's lifespan has set."""
    if not isinstance(request, ASGIRequest):
        raise TypeError("this app needs an ASGI server with lifespan support")
    shop: Shop = request.scope["state"]["shop"]
    return shop


@require_safe
async def show_form(request: HttpRequest) -> HttpResponse:
    """The form, with the id of the new order."""
    return render(request, "form.html", {"form": {"id": uuid.uuid4()}})


# Django's own check keeps forged forms out: CsrfViewMiddleware, and the token in the form.
@require_POST
async def post_order(request: HttpRequest) -> HttpResponse:
    """Start a swap. Sending the same form again is safe."""
    shop, form = get_shop(request), request.POST
    source_url, target_url = form.get("source_url", ""), form.get("target_url", "")
    try:
        order = shop.orders.place(form.get("id", ""), source_url, target_url, shop.webhook_url)
        await shop.begin(order)
    except AIFaceSwapError as error:
        problem = explain(error)
        page = render_to_string("form.html", {"form": form, "problem": problem}, request)
        return HttpResponse(page, status=problem.status, headers=problem.headers)
    return redirect("order", order.id)


@require_safe
async def show_order(request: HttpRequest, order_id: str) -> HttpResponse:
    """Show the progress; the browser reloads the page until the swap is finished."""
    order = get_shop(request).orders.get(order_id)
    if order is None:
        raise Http404
    # Without a swap id the app stopped before the request was sent: it can be sent again.
    return render(request, "form.html", {"order": order} if order.swap_id else {"form": order})


urlpatterns = [
    path("", show_form),
    path("orders", post_order),
    path("orders/<order_id>", show_order, name="order"),
]


def configure(public_url: str | None) -> None:
    """The contents of a project's settings.py."""
    django_settings.configure(
        ROOT_URLCONF=__name__,
        SECRET_KEY=os.environ.get("DJANGO_SECRET_KEY") or secrets.token_urlsafe(50),
        ALLOWED_HOSTS=["127.0.0.1", urlsplit(public_url or "").hostname or "localhost"],
        # Behind a proxy that terminates TLS, forms come from this origin.
        CSRF_TRUSTED_ORIGINS=[public_url] if public_url else [],
        MIDDLEWARE=[
            "django.middleware.security.SecurityMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.middleware.clickjacking.XFrameOptionsMiddleware",
        ],
        # It escapes what is in {{ }}.
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "DIRS": [Path(__file__).parent],
            }
        ],
        LOGGING_CONFIG=None,  # to stderr
    )
    django.setup()


def create_app(settings: demo.Settings) -> Any:
    """The ASGI app: Django with a lifespan, and the webhook next to it.

    The webhook needs no cookie and no token: its signature is checked.
    """
    configure(settings.public_url)
    shop, views = Shop(settings), get_asgi_application()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            async with shop.lifespan():
                scope["state"]["shop"] = shop
                await send({"type": "lifespan.startup.complete"})
                await receive()
            await send({"type": "lifespan.shutdown.complete"})
        elif scope["path"] == "/hooks/swap":
            await shop.hook(scope, receive, send)
        else:
            await views(scope, receive, send)

    return app


if __name__ == "__main__":
    with demo.start() as (settings, sock):
        config = uvicorn.Config(
            create_app(settings), lifespan="on", log_level="warning", timeout_graceful_shutdown=5
        )
        uvicorn.Server(config).run(sockets=[sock])
