"""A shop for swaps on Flask, with the blocking client: `python flask_app.py --emulator`.

A form starts a swap, and its order's page shows the progress. A request never waits for a swap:
a thread waits for each, and a webhook delivery or a shared poll ends the wait. Pages read the
database only.
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
from shop import REJECTED, Order, Orders, explain, log


class Shop:
    """One client for the app, its orders, and the threads that follow them."""

    def __init__(self, settings: demo.Settings) -> None:
        self.webhook_url = settings.webhook_url
        self.keys = [settings.api_key]  # during a key rotation: [new, old]
        self.orders = Orders(settings.database)
        self.client = Client(settings.api_key, base_url=settings.base_url)
        # Customers wait for this one: "try again in 3 s" is better than blocking all threads.
        self.quick = self.client.with_options(deadline=10, max_wait=0.5)

    @contextmanager
    def lifespan(self) -> Iterator[None]:
        """Open while the app runs; waits for swaps from before the restart continue."""
        self.client.expect_deliveries()
        for swap_id in self.orders.in_progress():
            self.follow(swap_id)
        with self.client:
            yield

    def begin(self, order: Order) -> None:
        """Create an order's swap, once: the idempotency key is already stored."""
        if order.swap_id is not None:
            return
        try:
            swap = self.quick.swaps.create(
                source_url=order.source_url,
                target_url=order.target_url,
                webhook_url=order.webhook_url,
                idempotency_key=order.idempotency_key,
            )
        except REJECTED:
            self.orders.forget(order)
            raise
        self.orders.created(order, swap)
        self.follow(swap)

    def follow(self, swap: Swap | str) -> None:
        """Wait in a thread: at most ten, because the service allows ten unfinished swaps.

        The thread ends with the process; the next start continues from the database.
        """
        threading.Thread(target=self.wait_for, args=[swap], daemon=True).start()

    def wait_for(self, swap: Swap | str) -> None:
        """Wait for a swap. All waits share their polls, and a webhook delivery ends them."""
        try:
            swap = self.client.swaps.wait(swap, timeout=None, on_update=self.orders.update)
            self.orders.update(swap)
        except SwapFailedError as error:
            self.orders.update(error.swap)
        except APIConnectionError:  # the client was closed; the next start continues
            log.info("stopped waiting for %s", swap)
        except Exception:
            log.exception("stopped waiting for %s", swap)


def create_app(shop: Shop) -> Flask:
    """The app."""
    app = Flask(__name__, template_folder=".")  # it escapes what is in {{ }}
    app.config["MAX_CONTENT_LENGTH"] = 1024 * 1024
    app.extensions["shop"] = shop
    app.before_request(refuse_other_sites)
    app.add_url_rule("/", view_func=show_form)
    app.add_url_rule("/orders", view_func=post_order, methods=["POST"])
    app.add_url_rule("/orders/<order_id>", view_func=show_order)
    app.add_url_rule("/hooks/swap", view_func=receive_webhook, methods=["POST"])
    return app


def refuse_other_sites() -> None:
    """Browsers send where a form comes from: a form on another site must not order here."""
    if request.method == "POST" and request.headers.get("Sec-Fetch-Site") == "cross-site":
        abort(403)


def get_shop() -> Shop:
    """The app's shop, for its views."""
    shop: Shop = current_app.extensions["shop"]
    return shop


def show_form() -> str:
    """The form, with the id of the new order."""
    return render_template("form.html", form={"id": uuid.uuid4()})


def post_order() -> ResponseReturnValue:
    """Start a swap. Sending the same form again is safe."""
    shop, form = get_shop(), request.form
    source_url, target_url = form.get("source_url", ""), form.get("target_url", "")
    try:
        order = shop.orders.place(form.get("id", ""), source_url, target_url, shop.webhook_url)
        shop.begin(order)
    except AIFaceSwapError as error:
        problem = explain(error)
        page = render_template("form.html", form=form, problem=problem)
        return page, problem.status, problem.headers
    return redirect(url_for("show_order", order_id=order.id), 303)


def show_order(order_id: str) -> str:
    """Show the progress; the browser reloads the page until the swap is finished."""
    order = get_shop().orders.get(order_id) or abort(404)
    if order.swap_id is None:  # the app stopped before the request was sent: it can be sent again
        return render_template("form.html", form=order)
    return render_template("form.html", order=order)


def receive_webhook() -> ResponseReturnValue:
    """Receive a webhook delivery. Receiving it twice is harmless."""
    shop = get_shop()
    header = request.headers.get(webhooks.SIGNATURE_HEADER)
    try:
        event = webhooks.parse(request.get_data(), header, shop.keys)
    except webhooks.WebhookVerificationError:
        return "", 400
    shop.orders.update(event.swap)
    shop.client.deliver(event)
    return "", 204


if __name__ == "__main__":
    with demo.start() as (settings, sock):
        shop = Shop(settings)
        server = make_server("127.0.0.1", 0, create_app(shop), threaded=True, fd=sock.fileno())
        with shop.lifespan():
            server.serve_forever()
