"""A shop for swaps on Flask, with the blocking client: `python flask_app.py --emulator`.

A form starts a swap, and its order's page shows how far it is. A request never waits for a swap:
a thread follows each to its end, woken by the webhook, or by looking where there is none. What is
known stands in the database; pages ask only there.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from flask import Flask, abort, current_app, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.serving import make_server

import demo
from aifaceswap import AIFaceSwapError, APIConnectionError, Client, Swap, SwapFailedError, webhooks
from shop import REFUSED, Order, Orders, explain, log


class Shop:
    """One client for the whole app, its orders, and the threads that follow them."""

    def __init__(self, settings: demo.Settings) -> None:
        self.webhook_url = settings.webhook_url
        self.keys = [settings.api_key]  # in a rotation: [new, old]
        self.orders = Orders(settings.database)
        self.client = Client(settings.api_key, base_url=settings.base_url)
        # A customer waits for this one: rather "come back in 3 s" than all threads taken.
        self.quick = self.client.with_options(deadline=10, max_wait=0.5)

    @contextmanager
    def lifespan(self) -> Iterator[None]:
        """Open for as long as the app runs; what was under way before is followed on."""
        self.client.expect_deliveries()
        for swap_id in self.orders.under_way():
            self.follow(swap_id)
        with self.client:
            yield

    def begin(self, order: Order) -> None:
        """Create an order's swap, once: its key was stored before."""
        if order.swap_id is not None:
            return
        try:
            swap = self.quick.swaps.create(
                source_url=order.source_url,
                target_url=order.target_url,
                webhook_url=order.webhook_url,
                idempotency_key=order.idempotency_key,
            )
        except REFUSED:
            self.orders.forget(order)
            raise
        self.orders.created(order, swap)
        self.follow(swap)

    def follow(self, swap: Swap | str) -> None:
        """Wait in a thread: ten at most, as the service allows ten unfinished swaps.

        It ends with the process; what it has missed is in the database.
        """
        threading.Thread(target=self.see_to_its_end, args=[swap], daemon=True).start()

    def see_to_its_end(self, swap: Swap | str) -> None:
        """See a swap to its end. All waits share their looks, and a delivery ends them."""
        try:
            swap = self.client.swaps.wait(swap, timeout=None, on_update=self.orders.saw)
            self.orders.saw(swap)
        except SwapFailedError as error:
            self.orders.saw(error.swap)
        except APIConnectionError:  # the client was closed; the next start follows it on
            log.info("no longer following %s", swap)
        except Exception:
            log.exception("lost sight of %s", swap)


def create_app(shop: Shop) -> Flask:
    """The app."""
    app = Flask(__name__, template_folder=".")  # which escapes what stands in {{ }}
    app.config["MAX_CONTENT_LENGTH"] = 1024 * 1024
    app.extensions["shop"] = shop
    app.before_request(refuse_other_sites)
    app.add_url_rule("/", view_func=show_form)
    app.add_url_rule("/orders", view_func=post_order, methods=["POST"])
    app.add_url_rule("/orders/<order_id>", view_func=show_order)
    app.add_url_rule("/hooks/swap", view_func=swap_ended, methods=["POST"])
    return app


def refuse_other_sites() -> None:
    """Browsers say where a form stands: one on another site must not order here."""
    if request.method == "POST" and request.headers.get("Sec-Fetch-Site") == "cross-site":
        abort(403)


def get_shop() -> Shop:
    """The app's shop, for its views."""
    shop: Shop = current_app.extensions["shop"]
    return shop


def show_form() -> str:
    """The form, with the id of the order that it will be."""
    return render_template("form.html", form={"id": uuid.uuid4()})


def post_order() -> ResponseReturnValue:
    """Start a swap. To send the same form again is safe."""
    shop, form = get_shop(), request.form
    source_url, target_url = form.get("source_url", ""), form.get("target_url", "")
    try:
        order = shop.orders.place(form.get("id", ""), source_url, target_url, shop.webhook_url)
        shop.begin(order)
    except AIFaceSwapError as error:
        answer = explain(error)
        page = render_template("form.html", form=form, answer=answer)
        return page, answer.status, answer.headers
    return redirect(url_for("show_order", order_id=order.id), 303)


def show_order(order_id: str) -> str:
    """How far it is; the browser asks again until it has ended."""
    order = get_shop().orders.get(order_id) or abort(404)
    if order.swap_id is None:  # the app died before it was sent: it can be sent again
        return render_template("form.html", form=order)
    return render_template("form.html", order=order)


def swap_ended() -> ResponseReturnValue:
    """The service says that a swap has ended. To hear it twice does no harm."""
    shop = get_shop()
    header = request.headers.get(webhooks.SIGNATURE_HEADER)
    try:
        event = webhooks.parse(request.get_data(), header, shop.keys)
    except webhooks.WebhookVerificationError:
        return "", 400
    shop.orders.saw(event.swap)
    shop.client.deliver(event)
    return "", 204


if __name__ == "__main__":
    with demo.start() as (settings, sock):
        shop = Shop(settings)
        server = make_server("127.0.0.1", 0, create_app(shop), threaded=True, fd=sock.fileno())
        with shop.lifespan():
            server.serve_forever()
