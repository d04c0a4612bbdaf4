"""The asynchronous client: `AsyncClient` and its `swaps`."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self, TypeVar, overload

import attrs

from aifaceswap import _validation
from aifaceswap._api import requests
from aifaceswap._api.requests import MAX_DOWNLOAD, Call
from aifaceswap._api.responses import EXPIRED, read_answer, read_response
from aifaceswap._http.transport import NEVER, CallOptions, Transport
from aifaceswap._limits import (
    API_KEY_VARIABLE,
    ATTEMPT_TIMEOUT,
    BASE_URL_VARIABLE,
    DEFAULT_BASE_URL,
    DEFAULT_PAGE_SIZE,
    MAX_PAGE_SIZE,
    MAX_UNFINISHED_SWAPS,
)
from aifaceswap._polling.watcher import Watcher
from aifaceswap.budget import RequestBudget, shared_budget
from aifaceswap.errors import (
    AIFaceSwapError,
    APIStatusError,
    ConfigurationError,
    InvalidRequestError,
    SwapFailedError,
    short_repr,
)
from aifaceswap.models import Account, Response, Swap, SwapPage, SwapRequest, SwapType, WebhookEvent

if TYPE_CHECKING:
    import aiohttp

    from aifaceswap.bulk import AsyncBulk, BulkProgress
    from aifaceswap.bulk._rows import Requests

T = TypeVar("T")

_LONGEST_WAIT = 1e9


class AsyncClient:
    """The AI Face Swap API, awaited.

    One client serves many tasks at once, and several event loops; make one and keep it. Used
    as an async context manager it closes its connections at the end; without, they close with
    their event loop.

    Args:
        api_key: The key; None: from the environment, ``AIFACESWAP_API_KEY``. It is for servers
            only and goes nowhere but to `base_url`.
        base_url: Where the API is, with its version; None: from ``AIFACESWAP_BASE_URL``, or
            ``https://aifacesswap.com/api/v1``. Plain http only to this machine.
        timeout: Seconds for one attempt, from the moment the budget lets it go to the last
            byte of the answer.
        deadline: Seconds for a whole call with its attempts and waits.
        max_retries: Attempts after the first one. Every attempt of a call sends the same bytes
            with the same idempotency key: it is never paid twice.
        max_wait: Seconds that one call may spend, in all, waiting for the service's limits: for
            a permit of the budget, and for a 429 to pass. Beyond it `RateLimitError` is raised
            at once. 0: never wait. None: up to the deadline. It does not bound `swaps.wait()`.
        budget: How many requests may be made. ``"shared"``: 60 in a minute and 10,000 in a UTC
            day for all clients of this key in this process. None: no budget; every 429 is met
            and obeyed.
        session: An aiohttp session of your own, e.g. with a TLS set-up; it is never closed
            here. It belongs to one event loop.
        proxy: The URL of an HTTP proxy. Proxies in the environment are not used.

    Attributes:
        swaps: Everything about swaps.

    Raises:
        ConfigurationError: The key is missing, or an argument cannot be used.
    """

    def __init__(
        self,
        api_key: str | None = None,
        *,
        base_url: str | None = None,
        timeout: float = ATTEMPT_TIMEOUT,
        deadline: float = 120.0,
        max_retries: int = 4,
        max_wait: float | None = None,
        budget: RequestBudget | Literal["shared"] | None = "shared",
        session: aiohttp.ClientSession | None = None,
        proxy: str | None = None,
    ) -> None:
        if api_key is None:
            api_key = os.environ.get(API_KEY_VARIABLE, "").strip()
        if base_url is None:
            base_url = os.environ.get(BASE_URL_VARIABLE) or DEFAULT_BASE_URL
        key = _validation.api_key(api_key)
        url = _validation.base_url(base_url)
        options = _options(timeout, deadline, max_retries, NEVER if max_wait is None else max_wait)
        transport = Transport(
            api_key=key,
            base_url=url,
            budget=shared_budget(url, key) if budget == "shared" else _budget(budget),
            session=session,
            proxy=None if proxy is None else _validation.proxy(proxy),
        )
        # A wait is no call: its looks take their turn, however long that is.
        watcher = Watcher(transport, attrs.evolve(options, max_wait=NEVER))
        self._core = _Resources(transport, watcher, options)
        self.swaps: AsyncSwaps = AsyncSwaps(self._core)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={self._core.transport.base_url!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a client holds a key and sockets and cannot be pickled: make one anew")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections of the running event loop.

        The client stays usable: its next call opens new ones.
        """
        await self._core.transport.aclose()

    def with_options(
        self,
        *,
        timeout: float | None = None,
        deadline: float | None = None,
        max_retries: int | None = None,
        max_wait: float | None = None,
    ) -> AsyncClient:
        """A client with another patience, sharing connections, budget and waits with this one.

        Args:
            timeout: Seconds for one attempt; None: as before.
            deadline: Seconds for a whole call; None: as before.
            max_retries: Attempts after the first one; None: as before.
            max_wait: Seconds that one call may wait for the service's limits; None: as before;
                ``float("inf")``: up to the deadline.

        Returns:
            The other client. It need not be closed.

        Raises:
            ConfigurationError: An argument cannot be used.
        """
        now = self._core.options
        options = _options(
            now.timeout if timeout is None else timeout,
            now.deadline if deadline is None else deadline,
            now.max_retries if max_retries is None else max_retries,
            now.max_wait if max_wait is None else max_wait,
        )
        other = object.__new__(type(self))
        other._core = attrs.evolve(self._core, options=options)
        other.swaps = AsyncSwaps(other._core)
        return other

    async def me(self) -> Account:
        """Whose key this is, and what is left of credits and requests. Costs no credits.

        Returns:
            The account.

        Raises:
            APIStatusError: The service refused, e.g. `AuthenticationError`.
            APIConnectionError: No whole answer came.
            APIResponseError: The answer cannot be read.
        """
        return await self._core.send(requests.get_account())

    def deliver(self, event: WebhookEvent) -> None:
        """Take in a webhook delivery: whoever waits for its swap is told, without a request.

        From any thread. `wait`, `run` and `bulk` of this client and of those derived from it
        end at once, also where they begin after the delivery. `webhooks.WebhookApp` calls this
        for the client it is given.

        Args:
            event: The delivery, as `webhooks.parse` returned it.

        Raises:
            InvalidRequestError: It is no `WebhookEvent`.
        """
        _check_event(event)
        self._core.watcher.saw(event.swap)

    def expect_deliveries(self) -> None:
        """Rely on webhook deliveries before the first one has come.

        `wait` and `run` then leave swaps with a ``webhook_url`` alone for as long as swaps
        usually take, and look when a delivery is overdue. After a missed one they look as if
        there were none, until deliveries come again. `webhooks.WebhookApp` calls this.
        """
        self._core.watcher.expect_deliveries()

    @overload
    async def request(
        self,
        method: str,
        path: str,
        *,
        json: object = None,
        content: bytes | None = None,
        params: Mapping[str, str | float] | None = None,
        headers: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Response[dict[str, Any]]: ...

    @overload
    async def request(
        self,
        method: str,
        path: str,
        *,
        into: type[T],
        json: object = None,
        content: bytes | None = None,
        params: Mapping[str, str | float] | None = None,
        headers: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Response[T]: ...

    async def request(
        self,
        method: str,
        path: str,
        *,
        into: type[Any] = dict,
        json: object = None,
        content: bytes | None = None,
        params: Mapping[str, str | float] | None = None,
        headers: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Response[Any]:
        """Any request to the API, for what this package has no method for.

        It goes through the same budget, retries and error decoding as every other call.

        Args:
            method: The HTTP method. All but GET, HEAD and OPTIONS carry an idempotency key.
            path: The path below the base URL, beginning with a slash.
            into: What to make of the JSON: ``dict``, ``list``, one of this package's values, an
                attrs class of your own; ``bytes`` gives the body as it came.
            json: A body to be sent as JSON.
            content: A body to be sent as it is; set its Content-Type in `headers`.
            params: The query.
            headers: Further headers.
            idempotency_key: Your own key; None: a fresh one.

        Returns:
            The answer: value, status, headers, request id, rate limit, attempts, key.

        Raises:
            InvalidRequestError: An argument cannot be sent; nothing was.
            APIStatusError: The service refused.
            APIConnectionError: No whole answer came.
            APIResponseError: The answer cannot be read as `into`.
        """
        call: Call[Any] = requests.any_request(
            method,
            path,
            into=into,
            json=json,
            content=content,
            params=params,
            headers=headers,
            idempotency_key=idempotency_key,
        )
        return await self._core.transport.send(call, self._core.options, read_response)


class AsyncSwaps:
    """Swaps: create them, wait for them, fetch their pictures. It is ``client.swaps``."""

    def __init__(self, core: _Resources) -> None:
        self._core = core

    async def create(
        self,
        *,
        source_url: str,
        target_url: str,
        type: SwapType | str = SwapType.IMAGE,  # noqa: A002 - the API's name
        webhook_url: str | None = None,
        target_face_index: int | None = None,
        enable_face_enhancer: bool | None = None,
        metadata: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> Swap:
        """Create a swap: put the face of one picture into another picture or GIF.

        All attempts of this call carry one idempotency key, so that it is paid once at most.

        Args:
            source_url: Public https URL of the picture of the face to put in.
            target_url: Public https URL of the image or GIF to transform.
            type: What the target is: ``"image"`` or ``"gif"``.
            webhook_url: Public https URL that is called when the swap ends.
            target_face_index: Which face of the target, from 0, where there are several.
            enable_face_enhancer: Whether to sharpen the face.
            metadata: A small JSON object that comes back with the swap.
            idempotency_key: Your own key, e.g. one that you have stored: the same key with the
                same arguments is the same swap. None: a fresh uuid4. Give one where the call
                may be cancelled or the process may die before it returns.

        Returns:
            The swap as it begins.

        Raises:
            InvalidRequestError: An argument is wrong; nothing was sent.
            InsufficientCreditsError: Top up and send it again with a fresh key.
            SourceUnreachableError: The service cannot fetch one of the URLs.
            ContentRejectedError: The content is not allowed.
            RateLimitError: Too many requests or unfinished swaps, beyond ``max_wait`` or the
                deadline.
            APIStatusError: The service refused otherwise.
            APIConnectionError: No whole answer came. The swap may have been created: send it
                again with the error's ``idempotency_key``.
            APIResponseError: The answer cannot be read; send it again with the same key.
        """
        request = SwapRequest(
            source_url=source_url,
            target_url=target_url,
            type=type,
            webhook_url=webhook_url,
            target_face_index=target_face_index,
            enable_face_enhancer=enable_face_enhancer,
            metadata=metadata,
        )
        return await self._core.send(requests.create_swap(request, idempotency_key))

    async def get(self, swap_id: str) -> Swap:
        """How a swap is now.

        Args:
            swap_id: Its id, ``tsk_…``.

        Returns:
            The swap.

        Raises:
            InvalidRequestError: This is no id; nothing was sent.
            NotFoundError: There is none, or it belongs to another key.
            APIStatusError: The service refused otherwise.
            APIConnectionError: No whole answer came.
            APIResponseError: The answer cannot be read.
        """
        return await self._core.send(requests.get_swap(swap_id))

    async def wait(
        self,
        swap: Swap | str,
        *,
        timeout: float | None = 300.0,
        on_update: Callable[[Swap], object] | None = None,
    ) -> Swap:
        """Wait until a swap has ended.

        All waits of a client share their looks at the service: a hundred of them cost no more
        requests than one.

        Args:
            swap: The swap, or its id.
            timeout: Seconds to wait at most; None: for ever.
            on_update: Called with the swap each time it has been looked at, e.g. to show its
                ``progress``.

        Returns:
            The swap with its ``result_url``.

        Raises:
            SwapFailedError: It ended without a result; the error's ``swap`` says why.
            WaitTimeoutError: It had not ended in time. It goes on: wait for it again.
            InvalidRequestError: This is no id, or `timeout` is not above 0.
            NotFoundError: There is none, or it belongs to another key.
            APIStatusError: The service refused to show it, e.g. `AuthenticationError`. What
                may pass (lost connections, 5xx) is not raised: the next look comes.
        """
        if not isinstance(swap, Swap):
            _validation.swap_id(swap)
        if timeout is not None:
            _check_wait(timeout)
        ended = await self._core.watcher.wait(swap, timeout, on_update)
        if ended.has_failed:
            reason = ended.error_message or "the service does not say why"
            raise SwapFailedError(f"{ended.id} failed: {reason}", swap=ended)
        return ended

    async def run(
        self,
        *,
        source_url: str,
        target_url: str,
        type: SwapType | str = SwapType.IMAGE,  # noqa: A002 - the API's name
        webhook_url: str | None = None,
        target_face_index: int | None = None,
        enable_face_enhancer: bool | None = None,
        metadata: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = 300.0,
    ) -> Swap:
        """Create a swap and wait until it has ended.

        Args:
            source_url: As in `create`.
            target_url: As in `create`.
            type: As in `create`.
            webhook_url: As in `create`.
            target_face_index: As in `create`.
            enable_face_enhancer: As in `create`.
            metadata: As in `create`.
            idempotency_key: As in `create`.
            timeout: Seconds to wait for its end, once it is created; None: for ever.

        Returns:
            The swap with its ``result_url``.

        Raises:
            AIFaceSwapError: As in `create` and `wait`; each with the ``idempotency_key``: with
                it, the same call goes on with the same swap.
        """
        key = requests.new_idempotency_key() if idempotency_key is None else idempotency_key
        swap = await self.create(
            source_url=source_url,
            target_url=target_url,
            type=type,
            webhook_url=webhook_url,
            target_face_index=target_face_index,
            enable_face_enhancer=enable_face_enhancer,
            metadata=metadata,
            idempotency_key=key,
        )
        try:
            return await self.wait(swap, timeout=timeout)
        except AIFaceSwapError as error:
            error.idempotency_key = key
            raise

    async def download(
        self,
        swap: Swap | str,
        path: str | os.PathLike[str],
        *,
        max_bytes: int = MAX_DOWNLOAD,
    ) -> Path:
        """Fetch the result of a swap into a file.

        The file appears when it is whole; until then an older one stays. A download that breaks
        off goes on where it was if the server allows. The key is not sent.

        Args:
            swap: The swap, or its id.
            path: The file; its folder must exist.
            max_bytes: Give up beyond so many bytes.

        Returns:
            The path of the file.

        Raises:
            InvalidRequestError: `path` cannot be written to, or the swap has no result yet.
            SwapFailedError: It has ended without one.
            APIStatusError: The result cannot be fetched.
            APIConnectionError: It broke off too often, or the deadline passed.
            APIResponseError: It is no picture, is too large, or comes without TLS.
            OSError: The file cannot be written.
        """
        # Only here: files and threads are loaded by those who download.
        from aifaceswap._http.download import check_target  # noqa: PLC0415

        target = check_target(path)
        _validation.positive_integer("max_bytes", max_bytes, InvalidRequestError)
        known = swap if isinstance(swap, Swap) and swap.result_url else None
        if known is not None:
            try:
                return await self._fetch(known, target, max_bytes)
            except APIStatusError as error:
                if error.status not in EXPIRED:
                    raise
        fresh = await self.get(swap.id if isinstance(swap, Swap) else swap)
        return await self._fetch(fresh, target, max_bytes)

    async def list(self, *, limit: int = DEFAULT_PAGE_SIZE, cursor: str | None = None) -> SwapPage:
        """One page of the key's swaps, newest first. Costs no credits.

        Args:
            limit: How many, 1 to 100.
            cursor: The ``next_cursor`` of the page before; None: the first page.

        Returns:
            The page.

        Raises:
            InvalidRequestError: An argument is wrong; nothing was sent.
            APIStatusError: The service refused.
            APIConnectionError: No whole answer came.
            APIResponseError: The answer cannot be read.
        """
        return await self._core.send(requests.list_swaps(limit, cursor))

    async def iterate(self, *, limit: int = MAX_PAGE_SIZE) -> AsyncIterator[Swap]:
        """All of the key's swaps, newest first, page by page.

        Args:
            limit: How many a page, 1 to 100.

        Yields:
            Each swap.

        Raises:
            InvalidRequestError: `limit` is wrong; nothing was sent.
            APIStatusError: The service refused.
            APIConnectionError: No whole answer came.
            APIResponseError: An answer cannot be read.
        """
        page = await self.list(limit=limit)
        while True:
            for swap in page:
                yield swap
            # A page may be empty and not be the last.
            if page.next_cursor is None:
                return
            page = await self.list(limit=limit, cursor=page.next_cursor)

    def bulk(
        self,
        requests: Requests,
        *,
        journal: str | os.PathLike[str] | None = None,
        download_to: str | os.PathLike[str] | None = None,
        concurrency: int = MAX_UNFINISHED_SWAPS,
        on_progress: Callable[[BulkProgress], object] | None = None,
        skip_finished: bool = False,
        retry_failed: bool = False,
        max_wait: float = 300.0,
        timeout: float | None = None,
    ) -> AsyncBulk:
        """Create many swaps, each exactly once, and see each to its end.

        To be used with ``async with`` and, inside, ``async for``: one `Outcome` for each row, in
        the order in which they end. A row that fails is an outcome, not an exception.

        Args:
            requests: The rows: `SwapRequest` values or mappings of its fields, from any iterable
                or async iterable. They are read as they are needed.
            journal: The file in which the run is recorded. Run with the same file again, it goes
                on where it stopped, whatever happened: nothing is lost, nothing is paid twice.
                None: no record.
            download_to: The folder for the pictures; None: they are not fetched.
            concurrency: How many swaps may be unfinished at once; the service allows 10 for
                each key, and those of others that are seen at the beginning are counted.
            on_progress: Called with a `BulkProgress` whenever something has changed.
            skip_finished: Leave out rows that had their outcome in an earlier run.
            retry_failed: Do rows that failed in an earlier run again, as new swaps.
            max_wait: Seconds that the run may stand still for the service's limits before it
                stops. The limit of the UTC day can take hours.
            timeout: Seconds that one swap may take; beyond it the row's outcome is
                `WaitTimeoutError`, and the next run waits for it again. None: for ever.

        Returns:
            The run.

        Raises:
            InvalidRequestError: An argument is wrong.
            BulkStoppedError: While iterating: the key, the credits or the day's requests stop
                every row. All that was begun is journaled.
            JournalError: The journal is in use, damaged, of another input, or cannot be written.
        """
        # Only here: SQLite is loaded by those who need it.
        from aifaceswap.bulk import AsyncBulk, BulkSettings  # noqa: PLC0415

        _validation.positive_integer("concurrency", concurrency, InvalidRequestError)
        settings = BulkSettings(
            journal=journal,
            download_to=None if download_to is None else Path(download_to),
            concurrency=concurrency,
            on_progress=on_progress,
            skip_finished=skip_finished,
            retry_failed=retry_failed,
            max_wait=max_wait,
            timeout=timeout,
        )
        return AsyncBulk(self._core.transport, self._core.watcher, requests, settings)

    async def _fetch(self, swap: Swap, target: Path, max_bytes: int) -> Path:
        from aifaceswap._http.download import download  # noqa: PLC0415 - as in `download`

        if swap.has_failed:
            reason = swap.error_message or "the service does not say why"
            raise SwapFailedError(f"{swap.id} failed: {reason}", swap=swap)
        if not swap.result_url:
            fault = f"has no result yet ({swap.status}); wait for it first"
            raise InvalidRequestError.for_field("swap", swap.id, fault)
        core = self._core
        await download(core.transport, swap.result_url, target, core.options, max_bytes=max_bytes)
        return target


@attrs.frozen
class _Resources:
    """What a client and those derived from it share, and the patience that is its own."""

    transport: Transport
    watcher: Watcher
    options: CallOptions

    def send(self, call: Call[T]) -> Awaitable[T]:
        return self.transport.send(call, self.options, read_answer)


def _options(
    timeout: object, deadline: object, max_retries: object, max_wait: object
) -> CallOptions:
    if not isinstance(max_retries, int) or isinstance(max_retries, bool) or max_retries < 0:
        text = f"max_retries: {max_retries!r} is not a whole number from 0 up"
        raise ConfigurationError(text, field="max_retries")
    return CallOptions(
        timeout=_validation.seconds("timeout", timeout),
        deadline=_validation.seconds("deadline", deadline),
        max_retries=max_retries,
        max_wait=_max_wait(max_wait),
    )


def _max_wait(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        # Beyond any deadline it makes no difference; and what a float cannot hold is beyond.
        return float(value) if value <= _LONGEST_WAIT else NEVER
    text = f"max_wait: {short_repr(value)} is no number of seconds from 0 up"
    raise ConfigurationError(text, field="max_wait")


def _budget(budget: object) -> RequestBudget | None:
    usable = budget is None or (hasattr(budget, "acquire") and hasattr(budget, "penalize"))
    if not usable:
        text = f"budget: {budget!r} has no acquire() and penalize()"
        raise ConfigurationError(text, field="budget")
    return budget  # type: ignore[return-value]


def _check_wait(timeout: object) -> None:
    try:
        _validation.seconds("timeout", timeout)
    except ConfigurationError as error:
        raise InvalidRequestError(str(error), field="timeout", value=timeout) from None


def _check_event(event: object) -> None:
    # A body that nobody has verified must not end a wait.
    if not isinstance(event, WebhookEvent):
        raise InvalidRequestError.for_field(
            "event", event, "is no WebhookEvent from webhooks.parse()"
        )
