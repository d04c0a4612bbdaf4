"""The emulator as its users see it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, cast

import anyio
import anyio.from_thread
import attrs

from aifaceswap.emulator import _validators as validators
from aifaceswap.emulator._control.api import Control
from aifaceswap.emulator._server.receivers import check_receiver, to_receiver
from aifaceswap.emulator._server.running import Running, ServerThread, make_origin
from aifaceswap.emulator._server.server import Frontend, Server
from aifaceswap.emulator._server.webhook_sender import WebhookSender
from aifaceswap.emulator._service.api import PREFIX, Api
from aifaceswap.emulator._service.delivery_queue import DeliveryQueue
from aifaceswap.emulator._service.fault_injector import FaultInjector
from aifaceswap.emulator._service.records import describe_request, describe_swap
from aifaceswap.emulator._service.results import ResultStore
from aifaceswap.emulator._service.state import ServiceState
from aifaceswap.emulator.clock import Clock, to_clock
from aifaceswap.emulator.faults import Fault
from aifaceswap.emulator.limits import Limits
from aifaceswap.emulator.settings import (
    CHANGEABLE,
    Idempotency,
    Lag,
    ResultLinks,
    check_prices,
    to_faults,
    to_limits,
    to_prices,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self, Unpack

    from aifaceswap.emulator._server.receivers import Receiver
    from aifaceswap.emulator._service.delivery_queue import DeliveryRecord
    from aifaceswap.emulator._service.records import RequestRecord, SwapRecord
    from aifaceswap.emulator.faults import FaultRecord
    from aifaceswap.emulator.settings import Settings

#: The default key of an emulator.
DEFAULT_API_KEY: Final = "key_emulator"


@attrs.define(eq=False, kw_only=True, on_setattr=attrs.setters.frozen)
class Emulator:
    """The AI Face Swap API on a loopback port, for tests and for trying things out.

    Works as an async and as a plain context manager; with plain `with` it runs in a
    thread of its own.

    Attributes:
        seed: The seed of ids, durations and images, 0 or more.
        clock: A `RealClock` by default.
        host: The address to listen on. Anyone who can reach an address other than loopback can
            control the emulator, see its requests, and make it post to `deliver_to`.
        port: 0 for a free one.
        api_key: The valid API key.
        credits: The balance at the start, 0 or more.
        limits: The rate limits of each key. None: no limits.
        duration: Seconds from the creation to the end of a swap; 0: it is done at the next poll.
        spread: Each swap's duration differs by up to this many seconds; at most `duration`.
        deliver_to: Where webhooks are posted to. An origin such as `http://127.0.0.1:8000`
            replaces that of the `webhook_url`; it must be on loopback if `host` is. An ASGI app,
            or a function of a `WebhookPost`, is called in this process. None: nowhere.
        idempotency: How repeated idempotency keys are treated.
        lag: How far reads are behind writes.
        prices: Credits for each type, such as `{"image": 1, "gif": 2}`.
        result_ttl: Seconds that a `result_url` is valid.
        result_links: What a `result_url` is like.
        faults: What goes wrong, see `Fault`; as an attribute: what became of each.

    Raises:
        ValueError: An argument is out of range; the message names it.
        TypeError: An argument is of a wrong type; the message names it.
    """

    seed: int = attrs.field(default=0, validator=validators.integer(least=0, most=2**63 - 1))
    clock: Clock = attrs.field(
        default=None,
        converter=to_clock,
        validator=validators.instance(Clock, "a Clock such as VirtualClock()"),
    )
    host: str = attrs.field(default="127.0.0.1", validator=validators.host)
    port: int = attrs.field(default=0, validator=validators.integer(least=0, most=65_535))
    api_key: str = attrs.field(
        default=DEFAULT_API_KEY, repr=False, validator=validators.bearer_token
    )
    credits: float = attrs.field(default=1000.0, validator=validators.number())
    limits: Limits = attrs.field(
        factory=Limits,
        converter=to_limits,
        validator=validators.instance(Limits, "a Limits(...) or None"),
    )
    duration: float = attrs.field(default=3.0, validator=validators.number())
    spread: float = attrs.field(default=0.0, validator=validators.number())
    deliver_to: str | Receiver | None = attrs.field(
        default=None, converter=to_receiver, validator=check_receiver
    )
    idempotency: Idempotency = attrs.field(
        factory=Idempotency, validator=validators.instance(Idempotency, "an Idempotency(...)")
    )
    lag: Lag = attrs.field(factory=Lag, validator=validators.instance(Lag, "a Lag(...)"))
    prices: Mapping[str, float] = attrs.field(
        factory=dict[str, float], converter=to_prices, validator=check_prices
    )
    result_ttl: float = attrs.field(default=3600.0, validator=validators.number(above=0.0))
    result_links: ResultLinks = attrs.field(
        factory=ResultLinks, validator=validators.instance(ResultLinks, "a ResultLinks(...)")
    )
    _faults: tuple[Fault, ...] = attrs.field(
        alias="faults",  # for type checkers that do not know attrs' rule
        default=(),
        repr=False,
        converter=to_faults,
        validator=validators.all_of(Fault),
    )
    _frontend: Frontend = attrs.field(init=False, repr=False, on_setattr=attrs.setters.NO_OP)
    # Resets return to these settings; these are in effect.
    _base: Emulator = attrs.field(init=False, repr=False, on_setattr=attrs.setters.NO_OP)
    _current: Emulator = attrs.field(init=False, repr=False, on_setattr=attrs.setters.NO_OP)
    _running: Running | None = attrs.field(
        init=False, default=None, repr=False, on_setattr=attrs.setters.NO_OP
    )
    _thread: ServerThread | None = attrs.field(
        init=False, default=None, repr=False, on_setattr=attrs.setters.NO_OP
    )

    def __attrs_post_init__(self) -> None:
        if self.spread > self.duration:
            raise ValueError(
                f"spread must be at most duration ({self.duration!r}); got {self.spread!r}"
            )
        state = ServiceState(
            self.seed,
            self.limits,
            self.duration,
            self.spread,
            self.credits,
            self.prices,
            self.idempotency,
            self.lag,
        )
        state.add_account(self.api_key)
        injector = FaultInjector(self.seed)
        for fault in self._faults:
            injector.add(fault)
        results = ResultStore(state, self.result_ttl, self.result_links)
        api = Api(state, results, DeliveryQueue(self.seed, self.deliver_to, injector), injector)
        self._frontend = Frontend(api, self.clock, self.host)
        self._base = self._current = self

    @property
    def _api(self) -> Api:
        return self._frontend.api

    @property
    def origin(self) -> str:
        """Scheme, host and port, such as ``http://127.0.0.1:49152``.

        Raises:
            RuntimeError: The emulator is not running.
        """
        self._require_running()
        return self._api.results.origin

    @property
    def base_url(self) -> str:
        """Where the API is, `/api/v1` included.

        Raises:
            RuntimeError: The emulator is not running.
        """
        return self.origin + PREFIX

    @property
    def balance(self) -> float:
        """The credits that are left."""
        with self._api.lock:
            self._api.state.settle(self.clock.now())
            return self._api.state.credits

    @property
    def requests(self) -> tuple[RequestRecord, ...]:
        """The latest requests, oldest first: at most 10,000 and 32 MiB."""
        with self._api.lock:
            entries = list(self._api.log)
        return tuple(map(describe_request, entries))

    @property
    def swaps(self) -> tuple[SwapRecord, ...]:
        """Every swap in its current state, oldest first."""
        with self._api.lock:
            swaps = list(self._api.state.swaps)
        now = self.clock.now()
        return tuple(describe_swap(swap, now) for swap in swaps)

    @property
    def deliveries(self) -> tuple[DeliveryRecord, ...]:
        """The latest webhook deliveries that came due, oldest first: at most 10,000."""
        with self._api.lock:
            return tuple(delivery.record() for delivery in self._api.queue.deliveries)

    @property
    def faults(self) -> tuple[FaultRecord, ...]:
        """Every fault, in order, and how often it was applied."""
        with self._api.lock:
            return tuple(self._api.faults.records())

    def add_fault(self, fault: Fault) -> int:
        """Add a fault after the others; from any thread.

        Returns:
            Its number, for `remove_fault()`.

        Raises:
            TypeError: It is not a `Fault`.
        """
        validators.require_instance("fault", fault, Fault)
        with self._api.lock:
            return self._api.faults.add(fault)

    def remove_fault(self, number: int) -> None:
        """Remove a fault.

        Raises:
            KeyError: No fault has this number.
        """
        with self._api.lock:
            self._api.faults.remove(number)

    def clear_faults(self) -> None:
        """Remove all faults."""
        with self._api.lock:
            self._api.faults.clear()

    def redeliver(self, delivery_id: str) -> None:
        """Send a webhook delivery again now, whatever its state; from any thread.

        Args:
            delivery_id: The `id` of one of `deliveries`.

        Raises:
            KeyError: No delivery has this id.
            ValueError: There is no receiver: `deliver_to` is None.
        """
        with self._api.lock:
            self._api.queue.redeliver(delivery_id, self.clock.now())
        if self._running is not None:
            self._running.call(self._running.sender.wake)

    @property
    def settings(self) -> Settings:
        """The settings in effect, without the faults."""
        values = {name: getattr(self._current, name) for name in CHANGEABLE}
        return cast("Settings", values)

    def reset(self, **settings: Unpack[Settings]) -> None:
        """Return to the state after the start, on the same port; from any thread.

        Swaps, requests, deliveries, faults, credits, keys and counters are removed, ids start
        again, and a `VirtualClock` is back at its start. A request in progress still gets a
        response from the old state; one that a fault holds is closed.

        Args:
            settings: Replace those of the constructor until the next reset: `faults`, `credits`,
                `limits`, `duration`, `spread`, `deliver_to`, `idempotency`, `lag`, `prices`,
                `result_ttl`, `result_links`.

        Raises:
            ValueError: A setting is out of range; the message names it.
            TypeError: A setting is of a wrong type or unknown; the message names it.
        """
        fresh = attrs.evolve(self._base, **settings)
        self.clock.restart()
        self._current = fresh
        self._install(fresh._api)

    def configure(self, **settings: Unpack[Settings]) -> None:
        """Change settings until the next reset and keep everything else; from any thread.

        Swaps that exist keep their duration and price; `faults` replaces all faults, `credits`
        the balance.

        Args:
            settings: As for `reset()`.

        Raises:
            ValueError: A setting is out of range; the message names it.
            TypeError: A setting is of a wrong type or unknown; the message names it.
        """
        changed = self._current = attrs.evolve(self._current, **settings)
        api, state = self._api, self._api.state
        with api.lock:
            state.change_limits(changed.limits)
            state.duration, state.spread = changed.duration, changed.spread
            state.idempotency, state.lag = changed.idempotency, changed.lag
            api.results.ttl, api.results.style = changed.result_ttl, changed.result_links
            api.queue.deliver_to = changed.deliver_to
            if "prices" in settings:
                state.prices = changed.prices
            if "credits" in settings:
                state.credits = changed.credits
            if "faults" in settings:
                api.faults.clear()
                for fault in changed._faults:
                    api.faults.add(fault)

    def _install(self, api: Api) -> None:
        api.results.origin = self._api.results.origin
        self._frontend.api = api
        if self._running is not None:
            self._running.call(self._frontend.let_go)
            self._running.call(self._running.sender.drop_all)

    def advance(self, seconds: float) -> None:
        """Move the clock forward; from any thread. A `RealClock` also continues by itself.

        Args:
            seconds: 0 to 1e12.

        Raises:
            ValueError: `seconds` is negative, or too great for a clock.
            TypeError: `seconds` is not a number.
        """
        self.clock.advance(seconds)

    async def settle(self) -> None:
        """Return when every delivery that is due has been attempted; from any event loop.

        Raises:
            RuntimeError: The emulator is not running.
        """
        running = self._require_running()
        settling = running.sender.settle()
        if running.loop is asyncio.get_running_loop():
            await settling
        else:
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(settling, running.loop))

    def settle_blocking(self) -> None:
        """`settle()` for an emulator that was started by a plain `with`.

        Raises:
            RuntimeError: The emulator is not running in a thread of its own.
        """
        if self._thread is None:
            raise RuntimeError("settle_blocking() needs `with Emulator()`; await settle()")
        self._thread.portal.call(self.settle)

    def add_key(self, api_key: str, limits: Limits | None = None) -> None:
        """Add a valid API key: same user and credits, its own list and counters.

        Args:
            api_key: A new key, or one that was revoked.
            limits: Its rate limits. None: those of the emulator, or those that the key had.

        Raises:
            ValueError: It cannot stand in an Authorization header.
        """
        validators.require_key("api_key", api_key)
        if limits is not None:
            validators.require_instance("limits", limits, Limits)
        with self._api.lock:
            self._api.state.add_account(api_key, limits)

    def revoke_key(self, api_key: str) -> None:
        """Respond to `api_key` with `invalid_api_key` from now on.

        Raises:
            KeyError: There is no such key.
        """
        with self._api.lock:
            self._api.state.accounts[api_key].live = False

    def top_up(self, credits: float) -> None:  # noqa: A002 (the API's word)
        """Add credits to the balance.

        Args:
            credits: At least 0.
        """
        validators.require_number("credits", credits)
        if credits < 0:
            raise ValueError(f"credits must be 0 or more; got {credits!r}")
        with self._api.lock:
            self._api.state.credits += credits

    async def __aenter__(self) -> Self:
        if self._running is not None:
            raise RuntimeError("this emulator is running already")
        loop = asyncio.get_running_loop()
        self.clock.bind(loop)
        self._frontend.control = Control(self, self._frontend)
        host = "127.0.0.1" if self.host == "localhost" else self.host
        server = Server(self._frontend, host, self.port)
        port = await server.start()
        self._api.results.origin = make_origin(host, port)
        sender = WebhookSender(self._frontend)
        self._running = Running(loop, server, sender, loop.create_task(sender.run()))
        return self

    async def __aexit__(self, *_: object) -> None:
        running, self._running = self._require_running(), None
        # Also when a timeout around the block has just fired.
        with anyio.CancelScope(shield=True):
            running.task.cancel()
            await running.server.stop()
            with contextlib.suppress(asyncio.CancelledError):
                await running.task

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            portal = stack.enter_context(anyio.from_thread.start_blocking_portal())
            portal.call(self.__aenter__)
            self._thread = ServerThread(portal, stack.pop_all())
        return self

    def __exit__(self, *_: object) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            with thread.stack:
                thread.portal.call(self.__aexit__)

    def _require_running(self) -> Running:
        if self._running is None:
            raise RuntimeError("the emulator is not running: use `async with` or `with`")
        return self._running


def rebase(emulator: Emulator, settings: Settings) -> None:
    """Reset the emulator; later resets return to these settings instead of the constructor's."""
    emulator._base = attrs.evolve(  # pyright: ignore[reportPrivateUsage]
        emulator, **settings
    )
    emulator.reset()
