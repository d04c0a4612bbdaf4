"""The synchronous client: `Client` and its `swaps`, a facade over the asynchronous ones.

Nothing of the API is known here: each method hands its arguments to the loop in a thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self, TypeVar, overload

from aifaceswap._api.requests import MAX_DOWNLOAD, new_idempotency_key
from aifaceswap._limits import (
    ATTEMPT_TIMEOUT,
    DEFAULT_PAGE_SIZE,
    MAX_PAGE_SIZE,
    MAX_UNFINISHED_SWAPS,
)
from aifaceswap._portal import LoopThread
from aifaceswap.budget import RequestBudget
from aifaceswap.client import AsyncClient, AsyncSwaps
from aifaceswap.errors import APIConnectionError
from aifaceswap.models import Account, Response, Swap, SwapPage, SwapType, WebhookEvent

if TYPE_CHECKING:
    from aifaceswap.bulk import AsyncBulk, BulkProgress, Outcome
    from aifaceswap.bulk._rows import Requests

T = TypeVar("T")


class Client:
    """The AI Face Swap API, called.

    Several threads may share one client. It works in scripts, threads, Jupyter and after a
    fork; inside a running event loop it blocks that loop, and says so once: `AsyncClient` is
    the one to use there.

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
        proxy: str | None = None,
    ) -> None:
        self._client = AsyncClient(
            api_key,
            base_url=base_url,
            timeout=timeout,
            deadline=deadline,
            max_retries=max_retries,
            max_wait=max_wait,
            budget=budget,
            proxy=proxy,
        )
        self._thread = LoopThread()
        self.swaps: Swaps = Swaps(self._client.swaps, self._thread)

    def __repr__(self) -> str:
        return repr(self._client).replace("AsyncClient", type(self).__name__, 1)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a client holds a key and sockets and cannot be pickled: make one anew")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections and end the thread; calls under way in other threads break off.

        The client stays usable: its next call opens new ones.
        """
        self._thread.stop()

    def with_options(
        self,
        *,
        timeout: float | None = None,
        deadline: float | None = None,
        max_retries: int | None = None,
        max_wait: float | None = None,
    ) -> Client:
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
        other = object.__new__(type(self))
        derived = self._client.with_options(
            timeout=timeout, deadline=deadline, max_retries=max_retries, max_wait=max_wait
        )
        other._client = derived
        other._thread = self._thread
        other.swaps = Swaps(derived.swaps, self._thread)
        return other

    def me(self) -> Account:
        """Whose key this is, and what is left of credits and requests. Costs no credits.

        Returns:
            The account.

        Raises:
            APIStatusError: The service refused, e.g. `AuthenticationError`.
            APIConnectionError: No whole answer came.
            APIResponseError: The answer cannot be read.
        """
        return self._thread.run(self._client.me)

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
        self._client.deliver(event)

    def expect_deliveries(self) -> None:
        """Rely on webhook deliveries before the first one has come.

        `wait` and `run` then leave swaps with a ``webhook_url`` alone for as long as swaps
        usually take, and look when a delivery is overdue. After a missed one they look as if
        there were none, until deliveries come again. `webhooks.WebhookApp` calls this.
        """
        self._client.expect_deliveries()

    @overload
    def request(
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
    def request(
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

    def request(
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
        return self._thread.run(
            self._client.request,
            method,
            path,
            into=into,
            json=json,
            content=content,
            params=params,
            headers=headers,
            idempotency_key=idempotency_key,
        )


class Swaps:
    """Swaps: create them, wait for them, fetch their pictures. It is ``client.swaps``."""

    def __init__(self, swaps: AsyncSwaps, thread: LoopThread) -> None:
        self._swaps = swaps
        self._thread = thread

    def create(
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
                same arguments is the same swap. None: a fresh uuid4. Give one where the process
                may die before the call returns.

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
            KeyboardInterrupt: Ctrl-C; a note on it tells the idempotency key.
        """
        key = new_idempotency_key() if idempotency_key is None else idempotency_key
        with _noting(key):
            return self._thread.run(
                self._swaps.create,
                source_url=source_url,
                target_url=target_url,
                type=type,
                webhook_url=webhook_url,
                target_face_index=target_face_index,
                enable_face_enhancer=enable_face_enhancer,
                metadata=metadata,
                idempotency_key=key,
            )

    def get(self, swap_id: str) -> Swap:
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
        return self._thread.run(self._swaps.get, swap_id)

    def wait(
        self,
        swap: Swap | str,
        *,
        timeout: float | None = 300.0,
        on_update: Callable[[Swap], object] | None = None,
    ) -> Swap:
        """Wait until a swap has ended.

        All waits of a client share their looks at the service: threads that wait for a hundred
        swaps cost no more requests than one. `on_update` is called in the client's own thread,
        which it must not block.

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
        return self._thread.run(self._swaps.wait, swap, timeout=timeout, on_update=on_update)

    def run(
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
            KeyboardInterrupt: Ctrl-C; a note on it tells the idempotency key.
        """
        key = new_idempotency_key() if idempotency_key is None else idempotency_key
        with _noting(key):
            return self._thread.run(
                self._swaps.run,
                source_url=source_url,
                target_url=target_url,
                type=type,
                webhook_url=webhook_url,
                target_face_index=target_face_index,
                enable_face_enhancer=enable_face_enhancer,
                metadata=metadata,
                idempotency_key=key,
                timeout=timeout,
            )

    def download(
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
        return self._thread.run(self._swaps.download, swap, path, max_bytes=max_bytes)

    def list(self, *, limit: int = DEFAULT_PAGE_SIZE, cursor: str | None = None) -> SwapPage:
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
        return self._thread.run(self._swaps.list, limit=limit, cursor=cursor)

    def iterate(self, *, limit: int = MAX_PAGE_SIZE) -> Iterator[Swap]:
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
        # Not the async generator: one with a cancel scope cannot be driven through a portal.
        page = self.list(limit=limit)
        while True:
            yield from page
            if page.next_cursor is None:
                return
            page = self.list(limit=limit, cursor=page.next_cursor)

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
    ) -> Bulk:
        """Create many swaps, each exactly once, and see each to its end.

        To be used with ``with`` and, inside, ``for``: one `Outcome` for each row, in
        the order in which they end. A row that fails is an outcome, not an exception. The rows are
        read, and `on_progress` is called, in the client's own thread.

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
        run = self._swaps.bulk(
            requests,
            journal=journal,
            download_to=download_to,
            concurrency=concurrency,
            on_progress=on_progress,
            skip_finished=skip_finished,
            retry_failed=retry_failed,
            max_wait=max_wait,
            timeout=timeout,
        )
        return Bulk(run, self._thread)


class Bulk:
    """A run: a context manager, and an iterator of one outcome for each row.

    Made by ``client.swaps.bulk()``. Leaving the block breaks off what is under way; what is
    journaled goes on in the next run.

    Args:
        run: The asynchronous run.
        thread: The event loop that carries it.
    """

    def __init__(self, run: AsyncBulk, thread: LoopThread) -> None:
        self._run = run
        self._thread = thread

    def __enter__(self) -> Self:
        self._thread.run(self._run.__aenter__)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._thread.run(self._run.__aexit__, exc_type, exc, traceback)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Outcome:
        """The next outcome, in the order in which rows end.

        Raises:
            BulkStoppedError: The run cannot go on, and every row that was begun has ended.
            JournalError: The journal cannot be used.
            StopIteration: Every row has its outcome, or the run was stopped.
        """
        outcome = self._thread.run(self._run.next_or_none)
        if outcome is None:
            raise StopIteration
        return outcome

    def stop(self) -> None:
        """Begin no further row. The iteration ends when what is under way has ended."""
        self._thread.run(self._run.stop_soon)


class _noting:  # noqa: N801 - reads like a function, as context managers do
    """Tell the idempotency key of a paid call that the caller broke off."""

    __slots__ = ("_key",)

    def __init__(self, key: str) -> None:
        self._key = key

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(exc, KeyboardInterrupt | SystemExit):
            exc.add_note(f"idempotency key of the interrupted swap: {self._key}")
        elif isinstance(exc, APIConnectionError) and exc.idempotency_key is None:
            exc.idempotency_key = self._key
