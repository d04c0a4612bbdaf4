"""A shop for swaps on Django, with async views under ASGI: `python django_app.py --emulator`.

A form starts a swap, and its order's page shows how far it is. A request never waits for a swap:
a task follows each to its end, woken by the webhook, or by looking where there is none. What is
known stands in the database; pages ask only there.
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
from shop import REFUSED, Order, Orders, explain, log


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
    async def lifespan(self) -> AsyncIterator[None]:
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


def get_shop(request: HttpRequest) -> Shop:
    """The app's shop, for its views: what ASGI's lifespan has left there."""
    if not isinstance(request, ASGIRequest):
        raise TypeError("this app needs an ASGI server: others have no lifespan")
    shop: Shop = request.scope["state"]["shop"]
    return shop


@require_safe
async def show_form(request: HttpRequest) -> HttpResponse:
    """The form, with the id of the order that it will be."""
    return render(request, "form.html", {"form": {"id": uuid.uuid4()}})


# Django's own check keeps forged forms out: CsrfViewMiddleware, and the token in the form.
@require_POST
async def post_order(request: HttpRequest) -> HttpResponse:
    """Start a swap. To send the same form again is safe."""
    shop, form = get_shop(request), request.POST
    source_url, target_url = form.get("source_url", ""), form.get("target_url", "")
    try:
        order = shop.orders.place(form.get("id", ""), source_url, target_url, shop.webhook_url)
        await shop.begin(order)
    except AIFaceSwapError as error:
        answer = explain(error)
        page = render_to_string("form.html", {"form": form, "answer": answer}, request)
        return HttpResponse(page, status=answer.status, headers=answer.headers)
    return redirect("order", order.id)


@require_safe
async def show_order(request: HttpRequest, order_id: str) -> HttpResponse:
    """How far it is; the browser asks again until it has ended."""
    order = get_shop(request).orders.get(order_id)
    if order is None:
        raise Http404
    # Without a swap, the app died before it was sent: it can be sent again.
    return render(request, "form.html", {"order": order} if order.swap_id else {"form": order})


urlpatterns = [
    path("", show_form),
    path("orders", post_order),
    path("orders/<order_id>", show_order, name="order"),
]


def configure(public_url: str | None) -> None:
    """What stands in a project's settings.py."""
    django_settings.configure(
        ROOT_URLCONF=__name__,
        SECRET_KEY=os.environ.get("DJANGO_SECRET_KEY") or secrets.token_urlsafe(50),
        ALLOWED_HOSTS=["127.0.0.1", urlsplit(public_url or "").hostname or "localhost"],
        # Behind a proxy that ends TLS, forms come from this origin.
        CSRF_TRUSTED_ORIGINS=[public_url] if public_url else [],
        MIDDLEWARE=[
            "django.middleware.security.SecurityMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.middleware.clickjacking.XFrameOptionsMiddleware",
        ],
        # Which escapes what stands in {{ }}.
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "DIRS": [Path(__file__).parent],
            }
        ],
        LOGGING_CONFIG=None,  # to stderr, where Django would write to nobody
    )
    django.setup()


def create_app(settings: demo.Settings) -> Any:
    """The ASGI app: Django, with a lifespan, and the webhook beside it.

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
        config = uvicorn.Config(create_app(settings), lifespan="on", log_level="warning")
        uvicorn.Server(config).run(sockets=[sock])
