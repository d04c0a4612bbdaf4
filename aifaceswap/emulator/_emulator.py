"""The emulator as its users see it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final, cast

import anyio
import anyio.from_thread
import attrs

from aifaceswap.emulator import _validators as validators
from aifaceswap.emulator._control.api import Control
from aifaceswap.emulator._server.server import Frontend, Server
from aifaceswap.emulator._server.webhook_sender import WebhookSender
from aifaceswap.emulator._service.api import PREFIX, Api
from aifaceswap.emulator._service.delivery_queue import DeliveryQueue
from aifaceswap.emulator._service.fault_injector import FaultInjector
from aifaceswap.emulator._service.records import describe_request, describe_swap
from aifaceswap.emulator._service.results import ResultLinks
from aifaceswap.emulator._service.state import ServiceState
from aifaceswap.emulator.clock import Clock, RealClock
from aifaceswap.emulator.faults import Fault
from aifaceswap.emulator.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

    from aifaceswap.emulator._service.delivery_queue import DeliveryRecord
    from aifaceswap.emulator._service.records import RequestRecord, SwapRecord
    from aifaceswap.emulator.faults import FaultRecord

#: The key that an emulator knows unless told otherwise.
DEFAULT_API_KEY: Final = "key_emulator"


def _choose_clock(clock: Clock | None) -> Clock:
    return RealClock() if clock is None else clock


def _to_tuple(faults: Sequence[Fault]) -> tuple[Fault, ...]:
    # What is no list is left to the validator.
    return tuple(faults) if isinstance(faults, list) else cast("tuple[Fault, ...]", faults)


def _check_receiver(emulator: Emulator, attribute: attrs.Attribute[Any], value: object) -> None:
    validators.require_origin(attribute.name, value, loopback=validators.is_loopback(emulator.host))


@attrs.define(eq=False, kw_only=True, on_setattr=attrs.setters.frozen)
class Emulator:
    """The AI Face Swap API on a loopback port, for tests and for trying things out.

    Works as an async and as a plain context manager; with plain `with` it runs in a
    thread of its own.

    Attributes:
        seed: The seed of ids, durations and images.
        clock: A `RealClock` unless given.
        host: Where it listens. Whoever reaches another address than loopback can steer the
            emulator, look at all that was sent to it, and have it post to `deliver_to`.
        port: 0 for a free one.
        api_key: The live key.
        credits: The balance at the start.
        limits: The rate limits of each key.
        duration: Seconds from creation to the end of a swap; 0: it has ended at the next look.
        spread: Each swap's duration differs by up to so many seconds; at most `duration`.
        result_ttl: Seconds that a `result_url` is valid.
        deliver_to: The origin that webhooks are posted to in place of that of their
            `webhook_url`, such as `http://127.0.0.1:8000`; None: nowhere. On loopback, unless
            `host` is not.
        faults: What goes wrong, see `Fault`; as an attribute: what became of each.

    Raises:
        ValueError: An argument is out of range; the message names it.
        TypeError: An argument is of a wrong type; the message names it.
    """

    seed: int = attrs.field(default=0, validator=validators.integer(least=0, most=2**63 - 1))
    clock: Clock = attrs.field(
        default=None,
        converter=_choose_clock,
        validator=validators.instance(Clock, "a Clock such as VirtualClock()"),
    )
    host: str = attrs.field(default="127.0.0.1", validator=validators.host)
    port: int = attrs.field(default=0, validator=validators.integer(least=0, most=65_535))
    api_key: str = attrs.field(
        default=DEFAULT_API_KEY, repr=False, validator=validators.bearer_token
    )
    credits: float = attrs.field(default=1000.0, validator=validators.number())
    limits: Limits = attrs.field(
        factory=Limits, validator=validators.instance(Limits, "a Limits(...)")
    )
    duration: float = attrs.field(default=3.0, validator=validators.number())
    spread: float = attrs.field(default=0.0, validator=validators.number())
    result_ttl: float = attrs.field(default=3600.0, validator=validators.number(above=0.0))
    deliver_to: str | None = attrs.field(default=None, validator=_check_receiver)
    _faults: tuple[Fault, ...] = attrs.field(
        alias="faults",  # for type checkers that do not know attrs' rule
        default=(),
        repr=False,
        converter=_to_tuple,
        validator=validators.all_of(Fault),
    )
    _frontend: Frontend = attrs.field(init=False, repr=False, on_setattr=attrs.setters.NO_OP)
    _running: _Running | None = attrs.field(
        init=False, default=None, repr=False, on_setattr=attrs.setters.NO_OP
    )
    _thread: _Thread | None = attrs.field(
        init=False, default=None, repr=False, on_setattr=attrs.setters.NO_OP
    )

    def __attrs_post_init__(self) -> None:
        if self.spread > self.duration:
            raise ValueError(
                f"spread must be at most duration ({self.duration!r}), not {self.spread!r}"
            )
        state = ServiceState(self.seed, self.limits, self.duration, self.spread, self.credits)
        state.add_account(self.api_key)
        injector = FaultInjector(self.seed)
        for fault in self._faults:
            injector.add(fault)
        results = ResultLinks(state, self.result_ttl)
        api = Api(state, results, DeliveryQueue(self.seed, self.deliver_to, injector), injector)
        self._frontend = Frontend(api, self.clock)

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
        """The latest requests, oldest first: at most 10,000."""
        with self._api.lock:
            entries = list(self._api.log)
        return tuple(map(describe_request, entries))

    @property
    def swaps(self) -> tuple[SwapRecord, ...]:
        """Every swap as it is now, oldest first."""
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
        """Every fault, in order, and how often it has struck."""
        with self._api.lock:
            return tuple(self._api.faults.records())

    def add_fault(self, fault: Fault) -> int:
        """Switch a fault on, behind those that are there; from any thread.

        Returns:
            Its number, for `remove_fault()`.

        Raises:
            TypeError: It is no `Fault`.
        """
        validators.require_instance("fault", fault, Fault)
        with self._api.lock:
            return self._api.faults.add(fault)

    def remove_fault(self, number: int) -> None:
        """Switch a fault off.

        Raises:
            KeyError: There is none with this number.
        """
        with self._api.lock:
            self._api.faults.remove(number)

    def clear_faults(self) -> None:
        """Switch all faults off."""
        with self._api.lock:
            self._api.faults.clear()

    def redeliver(self, delivery_id: str) -> None:
        """Attempt a webhook delivery once more, now, whatever became of it; from any thread.

        Args:
            delivery_id: The `id` of one of `deliveries`.

        Raises:
            KeyError: There is no such delivery.
            ValueError: There is nowhere to deliver it to.
        """
        with self._api.lock:
            self._api.queue.redeliver(delivery_id, self.clock.now())
        if self._running is not None:
            self._running.call(self._running.sender.wake)

    def reset(
        self,
        *,
        faults: Sequence[Fault] | None = None,
        credits: float | None = None,  # noqa: A002 (the API's word)
        limits: Limits | None = None,
        duration: float | None = None,
        deliver_to: str | None = None,
    ) -> None:
        """Be as if freshly started, on the same port; from any thread.

        Swaps, requests, deliveries, faults, credits, keys and counters are gone, ids begin anew,
        and a `VirtualClock` is back at its start. A request that is on its way is still answered,
        as of before, and leaves no trace; one that is held by a fault is cut off.

        Args:
            faults: In place of those of the constructor, until the next reset; the others alike.
            credits: The balance.
            limits: The rate limits of each key.
            duration: Seconds from creation to the end of a swap.
            deliver_to: The origin that webhooks are posted to.

        Raises:
            ValueError: An argument is out of range; the message names it.
            TypeError: An argument is of a wrong type; the message names it.
        """
        given = {
            "faults": faults,
            "credits": credits,
            "limits": limits,
            "duration": duration,
            "deliver_to": deliver_to,
        }
        changes: dict[str, Any] = {
            name: value for name, value in given.items() if value is not None
        }
        fresh = attrs.evolve(self, **changes)
        self.clock.restart()
        self._install(fresh._api)

    def _install(self, api: Api) -> None:
        api.results.origin = self._api.results.origin
        self._frontend.api = api
        if self._running is not None:
            self._running.call(self._frontend.let_go)
            self._running.call(self._running.sender.drop_all)

    def advance(self, seconds: float) -> None:
        """Move the clock on, a `RealClock` besides its own going; from any thread.

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
        """Make `api_key` live: same user and credits, its own list and counters.

        Args:
            api_key: A new one, or one that was revoked.
            limits: Its rate limits; None: those of the emulator, or those that it had.

        Raises:
            ValueError: It cannot stand in an Authorization header.
        """
        validators.require_key("api_key", api_key)
        if limits is not None:
            validators.require_instance("limits", limits, Limits)
        with self._api.lock:
            self._api.state.add_account(api_key, limits)

    def revoke_key(self, api_key: str) -> None:
        """Answer `invalid_api_key` to `api_key` from now on.

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
            raise ValueError(f"credits must be at least 0, not {credits!r}")
        with self._api.lock:
            self._api.state.credits += credits

    async def __aenter__(self) -> Self:
        if self._running is not None:
            raise RuntimeError("this emulator is running already")
        loop = asyncio.get_running_loop()
        self.clock.bind(loop)
        self._frontend.control = Control(self, self._frontend).respond
        host = "127.0.0.1" if self.host == "localhost" else self.host
        server = Server(self._frontend, host, self.port)
        port = await server.start()
        self._api.results.origin = _make_origin(host, port)
        sender = WebhookSender(self._frontend)
        self._running = _Running(loop, server, sender, loop.create_task(sender.run()))
        return self

    async def __aexit__(self, *_: object) -> None:
        running, self._running = self._require_running(), None
        # Also where a timeout around the whole block has just fired.
        with anyio.CancelScope(shield=True):
            running.task.cancel()
            await running.server.stop()
            with contextlib.suppress(asyncio.CancelledError):
                await running.task

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            portal = stack.enter_context(anyio.from_thread.start_blocking_portal())
            portal.call(self.__aenter__)
            self._thread = _Thread(portal, stack.pop_all())
        return self

    def __exit__(self, *_: object) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            with thread.stack:
                thread.portal.call(self.__aexit__)

    def _require_running(self) -> _Running:
        if self._running is None:
            raise RuntimeError("the emulator is not running: use `async with` or `with`")
        return self._running


def _make_origin(host: str, port: int) -> str:
    """How this machine reaches what listens there."""
    own = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - read, not bound
    return f"http://{f'[{own}]' if ':' in own else own}:{port}"


@attrs.frozen(eq=False)
class _Running:
    """What there is only between start and stop."""

    loop: asyncio.AbstractEventLoop
    server: Server
    sender: WebhookSender
    task: asyncio.Task[None]

    def call(self, function: Callable[[], None]) -> None:
        """Call a function in the loop: now where that is here."""
        if asyncio._get_running_loop() is self.loop:
            function()
        else:
            self.loop.call_soon_threadsafe(function)


@attrs.frozen(eq=False)
class _Thread:
    """What there is only within a plain `with`."""

    portal: anyio.from_thread.BlockingPortal
    stack: contextlib.ExitStack
