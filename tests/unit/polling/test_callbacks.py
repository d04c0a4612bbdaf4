"""`on_update`: in its caller's task and context, async if it likes, and nobody else's concern."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable

import pytest

from aifaceswap import AsyncClient, Swap
from support.samples import URLS

LIFE = 30.0
caller: contextvars.ContextVar[str] = contextvars.ContextVar("caller")


def now() -> float:
    return asyncio.get_running_loop().time()


def raising(error: BaseException) -> Callable[[Swap], object]:
    def callback(_: Swap) -> None:
        raise error

    return callback


@pytest.mark.parametrize(
    "error",
    [
        ValueError("bug"),
        TimeoutError("mine"),
        SystemExit(3),
        KeyboardInterrupt(),
        ExceptionGroup("g", [OSError()]),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("timeout", [None, 300.0])
async def test_what_a_callback_raises_ends_its_own_wait(
    client: AsyncClient, error: BaseException, timeout: float | None
) -> None:
    """As it is, and the others finish."""
    swaps = [await client.swaps.create(**URLS) for _ in range(3)]

    async def guarded(swap: Swap) -> BaseException:
        with pytest.raises(type(error)) as caught:
            await client.swaps.wait(swap, timeout=timeout, on_update=raising(error))
        return caught.value

    *good, raised = await asyncio.gather(
        *(client.swaps.wait(swap) for swap in swaps[:2]), guarded(swaps[2])
    )
    assert [swap.status for swap in good if isinstance(swap, Swap)] == ["done", "done"]
    assert raised is error


async def test_a_callback_runs_in_the_context_of_its_caller(client: AsyncClient) -> None:
    """And in its task, whoever polls."""
    seen: list[tuple[str, object]] = []

    async def wait(name: str) -> None:
        caller.set(name)
        swap = await client.swaps.create(**URLS)
        task = asyncio.current_task()
        await client.swaps.wait(
            swap, on_update=lambda _: seen.append((caller.get(), task is asyncio.current_task()))
        )

    await asyncio.gather(*(wait(f"caller {number}") for number in range(3)))
    assert set(seen) == {(f"caller {number}", True) for number in range(3)}


async def test_a_callback_may_be_async(client: AsyncClient) -> None:
    """It is awaited, and a slow one holds up nobody else."""
    shown: list[float] = []

    async def show(swap: Swap) -> None:
        await asyncio.sleep(4)
        shown.append(swap.progress or 0)

    swaps = [await client.swaps.create(**URLS) for _ in range(2)]
    began = now()
    slow = asyncio.ensure_future(client.swaps.wait(swaps[0], on_update=show))
    await client.swaps.wait(swaps[1])
    assert now() - began <= LIFE * 1.25
    assert (await slow).status == "done"
    assert len(shown) >= 3
    assert shown[-1] == 100


async def test_a_callback_that_hangs_does_not_hide_the_end(client: AsyncClient) -> None:
    """At the wait's timeout its swap has finished: no timeout is reported."""
    swap = await client.swaps.create(**URLS)

    async def hang(_: Swap) -> None:
        await asyncio.Event().wait()

    began = now()
    ended = await client.swaps.wait(swap, timeout=60, on_update=hang)
    assert ended.status == "done"
    assert now() - began == pytest.approx(60, abs=0.1)


async def test_a_callback_that_cancels_its_task_cancels_its_wait(client: AsyncClient) -> None:
    """And no poll is left behind."""
    swap = await client.swaps.create(**URLS)

    def cancel(_: Swap) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.ensure_future(client.swaps.wait(swap, on_update=cancel))
    assert not [task for task in asyncio.all_tasks() if "_poll" in repr(task)]
