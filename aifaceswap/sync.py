"""The synchronous client: `Client` and its `swaps`, a facade over the asynchronous ones.

Nothing of the API is known here: each method hands its arguments to the loop in a thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from copy import copy
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self, TypeVar, cast, overload

from aifaceswap._api.requests import MAX_DOWNLOAD, new_idempotency_key
from aifaceswap._limits import (
    ATTEMPT_TIMEOUT,
    DEFAULT_PAGE_SIZE,
    MAX_PAGE_SIZE,
    MAX_UNFINISHED_SWAPS,
)
from aifaceswap._portal import LoopThread
from aifaceswap._validation import Secret
from aifaceswap.budget import RequestBudget
from aifaceswap.client import AsyncClient, AsyncSwaps
from aifaceswap.errors import name_call
from aifaceswap.models import Account, Response, Swap, SwapPage, SwapType, WebhookEvent

if TYPE_CHECKING:
    from obstore.store import AzureStore, GCSStore, S3Store

    from aifaceswap._http.images import SwapImage
    from aifaceswap.bulk import AsyncBulk, BulkProgress, Outcome
    from aifaceswap.bulk._rows import Requests
    from aifaceswap.coordination import Coordinator
    from aifaceswap.files import FileSource, FileStore

T = TypeVar("T")


class Client:
    """The AI Face Swap API, called.

    Several threads may share one client. It works in scripts, threads, Jupyter and after a
    fork; inside a running event loop it blocks that loop, and says so once: `AsyncClient` is
    the one to use there.

    Args:
        api_key: The API key. Default: ``AIFACESWAP_API_KEY`` from the environment. Keys are for
            servers only; the client sends the key to `base_url` and to no other host.
        base_url: URL of the API with its version. Default: ``AIFACESWAP_BASE_URL`` from the
            environment, or ``https://aifacesswap.com/api/v1``. Plain http is accepted for
            loopback addresses only.
        timeout: Seconds for one attempt, from its start to the last byte of the response.
            Waiting for the rate limiter does not count.
        deadline: Seconds for a call with all its attempts and waits.
        max_retries: Attempts after the first one, 0 or more. Every attempt of a call sends the
            same bytes with the same idempotency key, so a call is never charged twice.
        max_wait: Seconds that one call may spend, in total, waiting for rate limits: for a
            permit of the budget and after a 429. `RateLimitError` is raised as soon as it
            would take longer. 0: never wait. None: up to the deadline. It does not limit
            `swaps.wait()`.
        budget: The client-side rate limiter. ``"shared"``: 60 requests a minute and 10,000 a
            UTC day for all clients of this key in this process. None: no limiter; the client
            waits after each 429.
        coordinator: Shares the limits of the key with other processes and machines, e.g. an
            `aifaceswap.redis.RedisCoordinator`; it takes the place of `budget`. You close it.
        proxy: URL of an HTTP proxy, or ``"environment"`` for the one in ``HTTPS_PROXY`` or
            ``ALL_PROXY``, except for hosts in ``NO_PROXY``. Default: no proxy. Plain http, to
            loopback addresses, is always sent without a proxy.
        files: Where local files are published: a bucket like ``"s3://bucket/prefix"``,
            ``"gs://…"`` or ``"az://…"`` (extra ``files``), an obstore store, or a
            `files.FileStore`. Default: ``AIFACESWAP_FILES`` from the environment, or the
            emulator if `base_url` is a loopback address.

    Attributes:
        swaps: Methods to create swaps, wait for them, and download their results.

    Raises:
        ConfigurationError: The key is missing, or an argument is not valid.
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
        coordinator: Coordinator | None = None,
        proxy: str | None = None,
        files: FileStore | S3Store | GCSStore | AzureStore | str | None = None,
    ) -> None:
        # No frame that an error passes holds a secret in clear.
        given_key, given_proxy = Secret.wrap(api_key), Secret.wrap(proxy)
        given_coordinator = Secret.wrap(coordinator)
        del api_key, proxy, coordinator
        self._client = AsyncClient(
            cast("str | None", given_key),
            base_url=base_url,
            timeout=timeout,
            deadline=deadline,
            max_retries=max_retries,
            max_wait=max_wait,
            budget=budget,
            coordinator=cast("Coordinator | None", given_coordinator),
            proxy=cast("str | None", given_proxy),
            files=files,
        )
        self._thread = LoopThread()
        self._is_derived = False
        self.swaps: Swaps = Swaps(self._client.swaps, self._thread)

    @property
    def budget(self) -> RequestBudget | None:
        """The client-side rate limiter; None for a client without one.

        A `Budget` shows a pause after a 429 as ``paused_until``, and ``reset()`` ends it.
        """
        return self._client.budget

    def __repr__(self) -> str:
        if "_client" not in vars(self):  # __init__() failed
            return f"<{type(self).__name__}: not initialized>"
        return repr(self._client).replace("AsyncClient", type(self).__name__, 1)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a client holds a key and sockets and cannot be pickled; create a new one")

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
        """Close the connections and end the thread. Calls of other threads fail.

        The client stays usable: its next call opens new ones. A client made by
        `with_options()` uses the connections of its parent and leaves them open. Signal
        handlers may call this.
        """
        if not self._is_derived:
            self._thread.stop()

    def with_options(
        self,
        *,
        timeout: float | None = None,
        deadline: float | None = None,
        max_retries: int | None = None,
        max_wait: float | None = None,
    ) -> Self:
        """Return a client with other timeouts and retries.

        It shares connections, rate limiter and polling with this client. It is of the same
        class and has the same attributes.

        Args:
            timeout: Seconds for one attempt; None: unchanged.
            deadline: Seconds for a call with all its attempts; None: unchanged.
            max_retries: Attempts after the first one; None: unchanged.
            max_wait: Seconds that one call may wait for rate limits; None: unchanged;
                ``float("inf")``: up to the deadline.

        Returns:
            The other client. You need not close it.

        Raises:
            ConfigurationError: An argument is not valid.
        """
        # Not by __init__: a subclass keeps its own attributes.
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        other._is_derived = True
        other._client = self._client.with_options(
            timeout=timeout, deadline=deadline, max_retries=max_retries, max_wait=max_wait
        )
        other.swaps = copy(self.swaps)
        vars(other.swaps).update(_swaps=other._client.swaps)
        return other

    def me(self) -> Account:
        """Fetch the key's account: its user, credits and rate limit. Costs no credits.

        Returns:
            The account.

        Raises:
            APIStatusError: The service rejected the request, e.g. `AuthenticationError`.
            APIConnectionError: No complete response arrived.
            APIResponseError: The response cannot be decoded.
        """
        return self._thread.run(self._client.me)

    def deliver(self, event: WebhookEvent) -> None:
        """Pass on a webhook delivery: waits for its swap end at once, without a request.

        Can be called from any thread. It ends `wait`, `run` and `bulk` of this client and of
        clients made by `with_options()`, also those that begin after the delivery. With a
        `coordinator` it ends those of all processes.
        `webhooks.WebhookApp` calls it for the client that it gets.

        Args:
            event: The delivery as `webhooks.parse` returned it.

        Raises:
            InvalidRequestError: `event` is not a `WebhookEvent`.
        """
        self._client.deliver(event)

    def expect_deliveries(self) -> None:
        """Rely on webhook deliveries before the first one has arrived.

        `wait` and `run` then do not poll a swap that has a ``webhook_url`` until its delivery is
        overdue. After a missed delivery they poll as if there were no webhooks, until
        deliveries arrive again. Call it only if this process receives the deliveries of all
        its own swaps, not with several workers behind one port.
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
        """Send any request to the API, e.g. to an endpoint without a method here.

        Rate limiter, retries and error decoding are those of every other call.

        Args:
            method: The HTTP method. All but GET, HEAD and OPTIONS send an idempotency key.
            path: The path below the base URL, with a leading slash.
            into: What to decode the JSON into: ``dict``, ``list``, one of this package's
                values, or an attrs class of your own. ``bytes`` returns the body as received.
            json: A body to send as JSON.
            content: A body to send as it is; set its Content-Type in `headers`.
            params: The query parameters.
            headers: Additional headers.
            idempotency_key: Your own key. Default: a new one.

        Returns:
            The response: value, status, headers, request id, rate limit, attempts, key.

        Raises:
            InvalidRequestError: An argument cannot be sent; nothing was sent.
            APIStatusError: The service rejected the request.
            APIConnectionError: No complete response arrived.
            APIResponseError: The response cannot be decoded into `into`.
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
    """Swaps: create them, wait for them, fetch their results. It is ``client.swaps``."""

    def __init__(self, swaps: AsyncSwaps, thread: LoopThread) -> None:
        self._swaps = swaps
        self._thread = thread

    def create(
        self,
        *,
        source: FileSource | None = None,
        target: FileSource | None = None,
        source_url: str | None = None,
        target_url: str | None = None,
        type: SwapType | str | None = None,  # noqa: A002 - the API's name
        webhook_url: str | None = None,
        target_face_index: int | None = None,
        enable_face_enhancer: bool | None = None,
        metadata: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> Swap:
        """Create a swap: put the face of one image into another image or GIF.

        All attempts of this call send one idempotency key, so it is charged at most once.

        Args:
            source: The image with the face to put in: a path, bytes, an open binary file, or a
                public https URL. Local files are published in the client's store first.
            target: The image or GIF to transform, as `source`.
            source_url: In place of `source`: its public https URL.
            target_url: In place of `target`: its public https URL.
            type: What the target is: ``"image"`` or ``"gif"``. Default: ``"gif"`` for a local
                GIF, else ``"image"``.
            webhook_url: Public https URL that is called when the swap finishes.
            target_face_index: Index of the face in the target, from 0, if it has several.
            enable_face_enhancer: Whether to sharpen the face. Default: the service decides.
            metadata: A small JSON object that is returned with the swap.
            idempotency_key: Your own key, e.g. one that you have stored: the same key with the
                same arguments is the same swap. Default: a new uuid4. Pass one if the call may
                be cancelled, or the process killed, before it returns.

        Returns:
            The swap in its first state.

        Raises:
            InvalidRequestError: An argument is not valid, or a file cannot be read or is not an
                image; no swap was created.
            ConfigurationError: The store of local files cannot be used.
            FileStoreError: A local file could not be published; no swap was created.
            InsufficientCreditsError: Add credits and send it again with a new key.
            SourceUnreachableError: The service cannot fetch one of the URLs.
            ContentRejectedError: The content is not allowed.
            RateLimitError: Too many requests or unfinished swaps for longer than ``max_wait``
                or the deadline.
            APIStatusError: The service rejected the request for another reason.
            APIConnectionError: No complete response arrived. The swap may have been created:
                send it again with the error's ``idempotency_key``.
            APIResponseError: The response cannot be decoded; send it again with the same key.
        """
        key = new_idempotency_key() if idempotency_key is None else idempotency_key
        with _NamedCall(key):
            return self._thread.run(
                self._swaps.create,
                source=source,
                target=target,
                source_url=source_url,
                target_url=target_url,
                type=type,
                webhook_url=webhook_url,
                target_face_index=target_face_index,
                enable_face_enhancer=enable_face_enhancer,
                metadata=metadata,
                idempotency_key=key,
            )

    def publish(self, file: FileSource) -> str:
        """Publish a local image in the client's store, and return its URL.

        `create` and `run` do this for their `source` and `target`. Publish a file yourself to
        store its URL beside an idempotency key of your own: each process signs another URL, and
        a request that is repeated with its key must have the same URLs.

        Args:
            file: A path, bytes, or an open binary file. A public https URL is returned as it is.

        Returns:
            The URL. With a bucket it is signed, and valid for 24 hours by default.

        Raises:
            ConfigurationError: The store cannot be used, e.g. without the extra ``files``.
            FileStoreError: The store cannot take the file.
            InvalidRequestError: The file cannot be read or is not an image, or there is no store.
        """
        return self._thread.run(self._swaps.publish, file)

    def withdraw(self, url: str) -> None:
        """Remove a published file from the client's store.

        Swaps that the service has not processed yet fail without it, also those of other runs
        and processes with the same file.

        Args:
            url: What `publish` returned.

        Raises:
            ConfigurationError: The store cannot be used, e.g. without the extra ``files``.
            FileStoreError: The file cannot be removed.
            InvalidRequestError: `url` is not a URL of this store, or there is no store.
        """
        return self._thread.run(self._swaps.withdraw, url)

    def get(self, swap_id: str) -> Swap:
        """Fetch a swap's current state.

        Args:
            swap_id: Its id, ``tsk_…``.

        Returns:
            The swap.

        Raises:
            InvalidRequestError: `swap_id` is not a swap's id; nothing was sent.
            NotFoundError: There is no such swap, or it belongs to another key.
            APIStatusError: The service rejected the request for another reason.
            APIConnectionError: No complete response arrived.
            APIResponseError: The response cannot be decoded.
        """
        return self._thread.run(self._swaps.get, swap_id)

    def wait(
        self,
        swap: Swap | str,
        *,
        timeout: float | None = 300.0,
        on_update: Callable[[Swap], object] | None = None,
    ) -> Swap:
        """Wait until a swap is finished.

        All waits of a client share their polls: a hundred of them send as many requests as one.
        With a `coordinator` the clients of all processes do.

        Args:
            swap: The swap, or its id.
            timeout: Maximum seconds to wait; None: no maximum.
            on_update: Called with the swap after each poll, e.g. to show its ``progress``. It
                runs in the event loop's thread, which it must not block.

        Returns:
            The swap with its ``result_url``.

        Raises:
            SwapFailedError: The swap failed; the error's ``swap`` has the reason.
            WaitTimeoutError: The swap was not finished in time. It continues on the service:
                wait for it again.
            InvalidRequestError: `swap` is not an id, or `timeout` is not above 0.
            NotFoundError: There is no such swap, or it belongs to another key.
            APIStatusError: The service does not show the swap, e.g. `AuthenticationError`.
                Temporary errors (a lost connection, a 5xx) are left to the next poll.
        """
        return self._thread.run(self._swaps.wait, swap, timeout=timeout, on_update=on_update)

    def run(
        self,
        *,
        source: FileSource | None = None,
        target: FileSource | None = None,
        source_url: str | None = None,
        target_url: str | None = None,
        type: SwapType | str | None = None,  # noqa: A002 - the API's name
        webhook_url: str | None = None,
        target_face_index: int | None = None,
        enable_face_enhancer: bool | None = None,
        metadata: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        timeout: float | None = 300.0,
        on_update: Callable[[Swap], object] | None = None,
    ) -> Swap:
        """Create a swap and wait until it is finished.

        Args:
            source: As in `create`.
            target: As in `create`.
            source_url: As in `create`.
            target_url: As in `create`.
            type: As in `create`.
            webhook_url: As in `create`.
            target_face_index: As in `create`.
            enable_face_enhancer: As in `create`.
            metadata: As in `create`.
            idempotency_key: As in `create`.
            timeout: Maximum seconds to wait once the swap is created; None: no maximum.
            on_update: As in `wait`.

        Returns:
            The swap with its ``result_url``.

        Raises:
            AIFaceSwapError: As in `create` and `wait`, each with the ``idempotency_key`` and,
                once it is known, the ``swap_id``. The same call with this key continues with
                the same swap. Any other exception has both in a note.
        """
        key = new_idempotency_key() if idempotency_key is None else idempotency_key
        with _NamedCall(key) as call:

            async def create_and_wait() -> Swap:
                swap = await self._swaps.create(
                    source=source,
                    target=target,
                    source_url=source_url,
                    target_url=target_url,
                    type=type,
                    webhook_url=webhook_url,
                    target_face_index=target_face_index,
                    enable_face_enhancer=enable_face_enhancer,
                    metadata=metadata,
                    idempotency_key=key,
                )
                call.swap_id = swap.id
                return await self._swaps.wait(swap, timeout=timeout, on_update=on_update)

            return self._thread.run(create_and_wait)

    def download(
        self,
        swap: Swap | str,
        path: str | os.PathLike[str],
        *,
        max_bytes: int = MAX_DOWNLOAD,
    ) -> Path:
        """Download the result of a swap into a file.

        The file appears when it is complete; until then an older file stays. A symbolic link is
        followed, and a file's mode is kept. An interrupted download resumes if the server
        supports it; a link that has expired is replaced. The API key is not sent.

        Args:
            swap: The swap, or its id.
            path: The file; its folder must exist.
            max_bytes: Maximum size in bytes, 1 or more.

        Returns:
            The path of the file.

        Raises:
            InvalidRequestError: `path` cannot be written to, or the swap has no result yet.
            SwapFailedError: The swap failed.
            APIStatusError: The result cannot be fetched.
            APIConnectionError: The connection was lost too often, or the deadline passed.
            APIResponseError: The result is not an image, is too large, or is not on https.
            OSError: The file cannot be written. The swap was charged: download it again.
        """
        return self._thread.run(self._swaps.download, swap, path, max_bytes=max_bytes)

    def fetch(self, swap: Swap | str, *, max_bytes: int = MAX_DOWNLOAD) -> SwapImage:
        """Download the result of a swap into memory.

        Works as `download`, without a file.

        Args:
            swap: The swap, or its id.
            max_bytes: Maximum size in bytes, 1 or more.

        Returns:
            The image, with the media type that its bytes show.

        Raises:
            InvalidRequestError: The swap has no result yet.
            SwapFailedError: The swap failed.
            APIStatusError: The result cannot be fetched.
            APIConnectionError: The connection was lost too often, or the deadline passed.
            APIResponseError: The result is not an image, is too large, or is not on https.
        """
        return self._thread.run(self._swaps.fetch, swap, max_bytes=max_bytes)

    def list(self, *, limit: int = DEFAULT_PAGE_SIZE, cursor: str | None = None) -> SwapPage:
        """Fetch one page of the key's swaps, newest first. Costs no credits.

        Args:
            limit: Swaps on a page, 1 to 100.
            cursor: The ``next_cursor`` of the previous page; None: the first page.

        Returns:
            The page.

        Raises:
            InvalidRequestError: An argument is not valid; nothing was sent.
            APIStatusError: The service rejected the request.
            APIConnectionError: No complete response arrived.
            APIResponseError: The response cannot be decoded.
        """
        return self._thread.run(self._swaps.list, limit=limit, cursor=cursor)

    def iterate(self, *, limit: int = MAX_PAGE_SIZE) -> Iterator[Swap]:
        """Iterate over all of the key's swaps, newest first, page by page.

        Args:
            limit: Swaps on a page, 1 to 100.

        Yields:
            Each swap.

        Raises:
            InvalidRequestError: `limit` is not valid; nothing was sent.
            APIStatusError: The service rejected a request.
            APIConnectionError: No complete response arrived.
            APIResponseError: A response cannot be decoded.
        """
        # Not the async generator: one with a cancel scope cannot be driven through a portal.
        page = self.list(limit=limit)
        while True:
            yield from page
            if page.next_cursor is None:
                return
            page = self.list(limit=limit, cursor=page.next_cursor)

    def slot(
        self, idempotency_key: str, *, max_wait: float | None = None
    ) -> AbstractContextManager[None]:
        """Wait until the service accepts one more unfinished swap, and reserve its place.

        For workers that create swaps one by one. Use it with ``with``, and create the
        swap inside the block with the same key. The service allows 10 unfinished swaps for each
        API key; they are counted for all clients of the key in this process, and with a
        `coordinator` in all processes. The slot is free again when any of these clients sees
        that the swap has finished: in a wait, a delivery, or a poll. The block may end before.
        `bulk` needs no slot.

        Args:
            idempotency_key: The key that `create` or `run` gets inside the block. A key whose
                slot was lost with its process gets it back.
            max_wait: Maximum seconds to wait for a slot, 0 or more; None: no maximum.

        Returns:
            A context manager.

        Raises:
            InvalidRequestError: An argument is not valid.
            ConcurrencyLimitError: When the block is entered: no slot was free in time.
            APIConnectionError: When the block is entered: the coordinator is out of reach, and
                is set to raise.
        """
        slot = self._swaps.slot(idempotency_key, max_wait=max_wait)
        return _blocking(slot, self._thread)

    def bulk(
        self,
        requests: Requests,
        *,
        journal: str | os.PathLike[str] | None = None,
        download_to: str | os.PathLike[str] | None = None,
        concurrency: int = MAX_UNFINISHED_SWAPS,
        on_progress: Callable[[BulkProgress], object] | None = None,
        skip_finished: bool = False,
        retry_failed: bool | Literal["all"] = False,
        accept_new_key: bool = False,
        max_wait: float = 300.0,
        timeout: float | None = 900.0,
        max_credits: float | None = None,
        mark: bool = False,
    ) -> Bulk:
        """Create many swaps, each exactly once, and wait for all of them.

        Use the run with ``with`` and, inside, ``for``. It yields one `Outcome` for
        each row, in the order in which rows finish. A row that fails is an outcome, not an
        exception.

        Args:
            requests: The rows: `SwapRequest` values or mappings of its fields, from any iterable
                or async iterable. They are read as they are needed. With a journal a row is
                recognised by its content; a mapping may have a ``row_id`` of your own instead,
                e.g. because its URLs are signed and differ each time. A local file counts by
                its path and its content; it is published ahead of its row.
            journal: The file that records the run. A run with the same file resumes where the
                last one stopped: no row is lost or charged twice. None: no record.
            download_to: The folder for the results; None: they are not downloaded.
            concurrency: How many swaps may be unfinished at once, 1 or more. The service allows
                10 for each key; unfinished swaps of others at the start are counted, and with
                a `coordinator` those of all processes at any time.
            on_progress: Called with a `BulkProgress` after changes. It must not block the event
                loop; the blocking client calls it, and reads rows, in the thread that iterates.
            skip_finished: Leave out rows that had their outcome in an earlier run.
            retry_failed: Retry rows that failed in an earlier run, as new swaps. Rows that would
                fail again for their content are left out; ``"all"``: these, too.
            accept_new_key: Resume a journal that was made with another API key. Rows that were
                never sent continue with the new key. Rows in progress are not sent again: their
                outcome is `UnresolvedRowError`, and a run with the old key can still finish them.
            max_wait: Maximum seconds, 0 or more, that requests to create swaps may be rejected
                without one that is accepted, or a swap that finishes. Beyond it the run stops.
                The daily limit can take hours.
            timeout: Maximum seconds, above 0, to wait for one swap. After it the row's outcome
                is `WaitTimeoutError`, the run continues with its other slots, and the next run
                waits for the swap again. None: no maximum.
            max_credits: Maximum credits, 0 or more, that the swaps of the journal may cost, those
                of earlier runs included. The run stops before the next swap could exceed it; a
                price that rises while swaps are being created can. None: no maximum.
            mark: Put the idempotency key of each row into the metadata of its swap, as
                ``aifaceswap_idempotency_key``. A row that is resumed after the service may have
                forgotten its key is found by it, instead of ending in `UnresolvedRowError`.

        Returns:
            The run.

        Raises:
            InvalidRequestError: An argument is not valid.
            BulkStoppedError: While iterating: the run cannot continue, e.g. without credits or
                with a service that fails every row. The journal has every row that was begun.
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
            accept_new_key=accept_new_key,
            max_wait=max_wait,
            timeout=timeout,
            max_credits=max_credits,
            mark=mark,
        )
        return Bulk(run, self._thread)


@contextmanager
def _blocking(slot: AbstractAsyncContextManager[None], thread: LoopThread) -> Generator[None]:
    thread.run(slot.__aenter__)
    try:
        yield
    finally:
        thread.run(slot.__aexit__, None, None, None)


class Bulk:
    """A run: a context manager, and an iterator of one outcome for each row.

    Made by ``client.swaps.bulk()``. Leaving the block cancels what is in progress; the next
    run resumes what is journaled.

    Args:
        run: The asynchronous run.
        thread: The event loop that carries it.
    """

    def __init__(self, run: AsyncBulk, thread: LoopThread) -> None:
        self._run = run
        self._thread = thread
        run.call_back_in_caller()

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
            BulkStoppedError: The run cannot continue; every row that started has finished.
            ConfigurationError: The run was not opened with ``with``.
            JournalError: The journal cannot be used.
            StopIteration: Every row has its outcome, or the run was stopped.
        """
        while callable(outcome := self._thread.run(self._run.next_or_none)):
            outcome()  # rows are read and progress is reported in this thread
        if outcome is None:
            raise StopIteration
        return outcome

    def stop(self) -> None:
        """Start no further row. The iteration ends when the rows in progress have finished.

        Raises:
            ConfigurationError: The run was not opened with ``with``.
        """
        self._thread.run(self._run.stop_soon)


class _NamedCall:
    """Makes whatever ends a call that creates a swap carry its key, and the swap's id."""

    __slots__ = ("_key", "swap_id")

    def __init__(self, key: str) -> None:
        self._key = key
        self.swap_id: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is not None:
            name_call(exc, self._key, self.swap_id)
