"""What a program can see of its calls: log records and spans, and what is never in them."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aifaceswap import (
    AIFaceSwapError,
    APIConnectionError,
    APIResponseError,
    BadRequestError,
    Budget,
    Client,
    RateLimitError,
    ServerError,
)
from aifaceswap._api.requests import get_account
from aifaceswap._http.telemetry import observe
from aifaceswap.budget import Permit, Purpose
from aifaceswap.emulator import Emulator
from support.doc_pages import DOCS, blocks
from support.samples import KEY, client_of
from support.scripted import SWAP, ScriptedServer, answer, raw, refusal, reset, stall

trace = pytest.importorskip("opentelemetry.trace")
sdk = pytest.importorskip("opentelemetry.sdk.trace")
export = pytest.importorskip("opentelemetry.sdk.trace.export")
memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
sampling = pytest.importorskip("opentelemetry.sdk.trace.sampling")

URLS: dict[str, Any] = {
    "source_url": "https://example.com/f.jpg?token=secret-source",
    "target_url": "https://example.com/t.jpg?token=secret-target",
}
FIELDS = {
    *("method", "path", "status", "attempts", "seconds"),
    *("request_id", "idempotency_key", "error_type", "retry_in"),
}


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """The fields of a record, without their prefix."""
    prefix = "aifaceswap_"
    return {
        name.removeprefix(prefix): value
        for name, value in vars(record).items()
        if name.startswith(prefix)
    }


class Keeper(logging.Handler):
    """Keeps every record."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def records() -> Iterator[list[logging.LogRecord]]:
    logger, keeper = logging.getLogger("aifaceswap"), Keeper()
    logger.addHandler(keeper)
    logger.setLevel(logging.DEBUG)
    yield keeper.records
    logger.removeHandler(keeper)
    logger.setLevel(logging.NOTSET)


# --- records -------------------------------------------------------------------------------


async def test_a_call_leaves_one_record(records: list[logging.LogRecord]) -> None:
    """Of level DEBUG, by the one logger, with what it was and how it went."""
    made = answer(201, headers={"X-Request-Id": "req_7"})
    async with ScriptedServer(made) as server, client_of(server) as client:
        await client.swaps.create(**URLS, idempotency_key="order-7")
    (record,) = records
    assert (record.name, record.levelno) == ("aifaceswap", logging.DEBUG)
    seen = fields(record)
    assert 0 < seen.pop("seconds") < 5
    assert seen == {
        "method": "POST",
        "path": "/swaps",
        "status": 201,
        "attempts": 1,
        "request_id": "req_7",
        "idempotency_key": "order-7",
        "error_type": None,
        "retry_in": None,
    }
    assert record.getMessage().startswith("POST /swaps: 201 (attempts: 1, ")


async def test_a_retry_leaves_a_record(records: list[logging.LogRecord]) -> None:
    """Of level INFO: what went wrong and when it goes on; lost connections have no status."""
    limited = refusal(429, "rate_limited", {"Retry-After": "3"})
    async with ScriptedServer(reset, limited, answer()) as server, client_of(server) as client:
        await client.swaps.get("tsk_1")
    told = [
        (record.levelname, *map(fields(record).get, ("status", "error_type", "attempts")))
        for record in records
    ]
    assert told == [
        ("INFO", None, "APIConnectionError", 1),
        ("INFO", 429, "RateLimitError", 2),
        ("DEBUG", 200, None, 3),
    ]
    first, second, last = (fields(record)["retry_in"] for record in records)
    assert (first, last) == (0.0, None)
    assert 3.0 <= second <= 4.0
    assert [fields(record)["request_id"] for record in records] == [None, "req_1", None]
    assert records[1].getMessage() == (
        f"GET /swaps/tsk_1: 429 RateLimitError, trying again in {second:.1f} s"
    )


async def test_a_call_that_fails_leaves_a_record(records: list[logging.LogRecord]) -> None:
    """Of level INFO, with the error's class and the id that support asks for."""
    failure = refusal(500, "internal_error")
    async with ScriptedServer(failure) as server, client_of(server, max_retries=0) as client:
        with pytest.raises(ServerError):
            await client.me()
    (record,) = records
    assert record.levelno == logging.INFO
    assert fields(record)["error_type"] == "ServerError"
    assert fields(record)["request_id"] == "req_1"
    assert fields(record)["status"] == 500


async def test_what_the_budget_refuses_was_not_sent(records: list[logging.LogRecord]) -> None:
    """No attempt, no status."""
    async with (
        ScriptedServer(answer()) as server,
        client_of(server, budget=Budget(1, 60.0), max_wait=0) as client,
    ):
        await client.swaps.get("tsk_1")
        with pytest.raises(RateLimitError):
            await client.swaps.create(**URLS, idempotency_key="order-7")
    seen = fields(records[-1])
    assert seen["error_type"] == "RateLimitError"
    assert (seen["attempts"], seen["status"]) == (0, None)
    assert seen["idempotency_key"] == "order-7"


async def test_a_cancelled_call_leaves_a_record(records: list[logging.LogRecord]) -> None:
    """With the key: the swap may have been created."""
    async with ScriptedServer(stall) as server, client_of(server) as client:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.swaps.create(**URLS, idempotency_key="k"), 5)
    (record,) = records
    assert fields(record)["error_type"] == "CancelledError"
    assert fields(record)["idempotency_key"] == "k"


async def test_one_format_serves_all_records(records: list[logging.LogRecord]) -> None:
    """Every record has every field, so that no formatter stumbles."""
    one = logging.Formatter(
        " ".join(f"{name}=%(aifaceswap_{name})s" for name in sorted(FIELDS)), "%", "%"
    )
    async with (
        ScriptedServer(reset, answer(), stall) as server,
        client_of(server, timeout=1, max_retries=1) as client,
    ):
        await client.swaps.get("tsk_1")
        with pytest.raises(APIConnectionError):
            await client.me()
    assert len(records) == 4
    assert all(one.format(record).count("=") == len(FIELDS) for record in records)


@pytest.mark.parametrize(("level", "seen"), [("WARNING", 0), ("INFO", 1), ("DEBUG", 2)])
async def test_levels(caplog: pytest.LogCaptureFixture, level: str, seen: int) -> None:
    """INFO shows what went wrong, DEBUG every call, and nothing is above INFO."""
    caplog.set_level(level, "aifaceswap")
    async with ScriptedServer(reset, answer()) as server, client_of(server) as client:
        await client.swaps.get("tsk_1")
    assert len(caplog.records) == seen


def run(program: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", textwrap.dedent(program)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=50, check=False, env={**os.environ, **env}
    )


def test_a_program_without_settings_prints_nothing_and_loads_nothing() -> None:
    """Neither retries nor failures reach stderr; OpenTelemetry is not imported for calls."""
    done = run("""
        import logging, sys
        import aifaceswap

        with aifaceswap.Client("key", base_url="http://127.0.0.1:9", max_retries=1) as client:
            try:
                client.me()
            except aifaceswap.APIConnectionError as error:
                print(error.attempts)
        print(sorted(name for name in sys.modules if name.startswith("opentelemetry")))
        print(logging.getLogger("aifaceswap").handlers, logging.root.handlers)
    """)
    assert done.stderr == ""
    assert done.stdout.split("\n") == ["2", "[]", "[] []", ""]


def test_who_does_not_ask_gets_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """Where not even INFO is wanted, nothing is made for a call."""
    caplog.set_level(logging.WARNING, "aifaceswap")
    call = get_account()
    first, second = (observe(call, "https://example.com/api/v1") for _ in range(2))
    assert first is second


# --- spans ---------------------------------------------------------------------------------


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An exporter, with its provider in the place where a program sets one up."""
    exporter = memory.InMemorySpanExporter()
    provider = sdk.TracerProvider()
    provider.add_span_processor(export.SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield exporter
    provider.shutdown()


async def test_a_call_is_a_span(spans: Any) -> None:
    """A client span by the conventions of HTTP, without the query."""
    page = answer(200, {"data": [], "next_cursor": None}, {"X-Request-Id": "req_7"})
    async with ScriptedServer(page) as server, client_of(server) as client:
        await client.swaps.list(limit=7, cursor="opaque")
    (span,) = spans.get_finished_spans()
    assert (span.name, span.kind) == ("GET /swaps", trace.SpanKind.CLIENT)
    assert span.status.status_code == trace.StatusCode.UNSET
    assert span.attributes == {
        "http.request.method": "GET",
        "url.full": f"{server.base_url}/swaps",
        "url.template": "/swaps",
        "server.address": "127.0.0.1",
        "server.port": server.port,
        "http.response.status_code": 200,
        "aifaceswap.request_id": "req_7",
    }
    assert span.instrumentation_scope.name == "aifaceswap"
    (attempt,) = span.events
    assert attempt.name == "aifaceswap.attempt"
    assert attempt.attributes == {
        "aifaceswap.attempt": 1,
        "http.response.status_code": 200,
        "aifaceswap.request_id": "req_7",
    }


async def test_attempts_are_events_of_the_span(spans: Any) -> None:
    """One span for all of them; it counts what was sent again."""
    limited = refusal(429, "rate_limited", {"Retry-After": "3"})
    async with ScriptedServer(reset, limited, answer()) as server, client_of(server) as client:
        await client.swaps.create(**URLS, idempotency_key="order-7")
    (span,) = spans.get_finished_spans()
    assert span.attributes["http.request.resend_count"] == 2
    assert span.attributes["http.response.status_code"] == 200
    assert span.attributes["aifaceswap.idempotency_key"] == "order-7"
    assert span.status.status_code == trace.StatusCode.UNSET
    events = [dict(event.attributes) for event in span.events]
    assert 3.0 <= events[1].pop("aifaceswap.retry_in") <= 4.0
    assert events == [
        {"aifaceswap.attempt": 1, "error.type": "APIConnectionError", "aifaceswap.retry_in": 0.0},
        {
            "aifaceswap.attempt": 2,
            "http.response.status_code": 429,
            "error.type": "RateLimitError",
            "aifaceswap.request_id": "req_1",
        },
        {"aifaceswap.attempt": 3, "http.response.status_code": 200},
    ]


async def test_a_creation_is_a_generation(spans: Any) -> None:
    """What fits of the generative conventions, and on creations alone."""
    async with ScriptedServer(answer()) as server, client_of(server) as client:
        await client.swaps.create(**URLS)
        await client.swaps.get("tsk_1")
    created, read = spans.get_finished_spans()
    generative = {name: value for name, value in created.attributes.items() if "gen_ai" in name}
    assert generative == {
        "gen_ai.operation.name": "generate_content",
        "gen_ai.provider.name": "aifaceswap",
        "gen_ai.output.type": "image",
    }
    assert (read.name, read.attributes["url.full"]) == (
        "GET /swaps/{id}",
        f"{server.base_url}/swaps/tsk_1",
    )
    assert "gen_ai.provider.name" not in read.attributes


async def test_errors_set_the_status(spans: Any) -> None:
    """Without words, which may quote what was sent; and nothing is recorded as an exception."""
    refused = refusal(422, "nsfw_content_detected")
    for step, kind, status in [
        (refused, "ContentRejectedError", 422),
        (reset, "APIConnectionError", None),
        (answer(200, b"[]"), "APIResponseError", 200),
    ]:
        async with ScriptedServer(step) as server, client_of(server, max_retries=0) as client:
            with pytest.raises(AIFaceSwapError):
                await client.swaps.create(**URLS)
        (span,) = spans.get_finished_spans()
        spans.clear()
        assert span.status.status_code == trace.StatusCode.ERROR
        assert span.status.description is None
        assert span.attributes["error.type"] == kind
        assert span.attributes.get("http.response.status_code") == status
        assert [event.name for event in span.events] == ["aifaceswap.attempt"]


async def test_a_span_ends_whatever_ends_the_call(spans: Any) -> None:
    """Refused by the budget, cancelled in an attempt, cancelled between two."""
    limited = refusal(429, "rate_limited", {"Retry-After": "30"})
    async with ScriptedServer(answer(), stall, limited) as server:
        async with client_of(server, budget=Budget(1, 60.0), max_wait=0) as client:
            await client.swaps.get("tsk_1")
            with pytest.raises(RateLimitError):
                await client.me()
        async with client_of(server) as client:
            for _ in range(2):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(client.me(), 5)
    _, refused, cut, waiting = spans.get_finished_spans()
    assert (refused.attributes["error.type"], len(refused.events)) == ("RateLimitError", 0)
    assert "http.response.status_code" not in refused.attributes
    for span in (cut, waiting):
        assert (span.attributes["error.type"], len(span.events)) == ("CancelledError", 1)
        assert span.status.status_code == trace.StatusCode.ERROR


async def test_a_general_request_has_no_template(spans: Any) -> None:
    """Its path may hold anything, so that it is not in the name; methods that HTTP has not."""
    async with ScriptedServer(answer(200, {})) as server, client_of(server) as client:
        await client.request("GET", "/uploads/8273", params={"token": "secret"})
        await client.request("BREW", "/pot")
    read, brewed = spans.get_finished_spans()
    assert (read.name, brewed.name) == ("GET", "HTTP")
    assert read.attributes["url.full"] == f"{server.base_url}/uploads/8273"
    assert brewed.attributes["http.request.method"] == "_OTHER"
    assert brewed.attributes["http.request.method_original"] == "BREW"


class TracedBudget:
    """A budget of a user's own that makes spans."""

    async def acquire(self, purpose: Purpose = "read", *, max_wait: float | None = None) -> Permit:
        with trace.get_tracer("theirs").start_as_current_span("acquire"):
            return await Budget().acquire(purpose, max_wait=max_wait)

    def penalize(
        self, seconds: float, *, purpose: Purpose | None = None, code: str = "rate_limited"
    ) -> None: ...


async def test_spans_are_nested(spans: Any) -> None:
    """A call belongs to the program's span, and what happens in the call to the call's."""
    tracer = trace.get_tracer("app")
    async with (
        ScriptedServer(answer()) as server,
        client_of(server, budget=TracedBudget()) as client,
    ):
        with tracer.start_as_current_span("handler"):
            await client.swaps.get("tsk_1")
    inner, call, handler = spans.get_finished_spans()
    assert [span.name for span in (inner, call, handler)] == [
        "acquire",
        "GET /swaps/{id}",
        "handler",
    ]
    assert inner.parent.span_id == call.context.span_id
    assert call.parent.span_id == handler.context.span_id


def test_the_blocking_client_belongs_to_the_callers_span(spans: Any) -> None:
    """Though its calls run in a thread of their own."""
    tracer = trace.get_tracer("app")
    with (
        Emulator() as emulator,
        Client(emulator.api_key, base_url=emulator.base_url) as client,
        tracer.start_as_current_span("handler"),
    ):
        client.me()
    call, handler = spans.get_finished_spans()
    assert call.parent.span_id == handler.context.span_id


async def test_a_sampler_is_obeyed(spans: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it drops is not exported, and the call goes on as ever."""
    provider = sdk.TracerProvider(sampler=sampling.ALWAYS_OFF)
    provider.add_span_processor(export.SimpleSpanProcessor(spans))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    async with ScriptedServer(reset, answer()) as server, client_of(server) as client:
        await client.swaps.get("tsk_1")
    assert spans.get_finished_spans() == ()


def test_without_a_provider_there_is_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """OpenTelemetry that is loaded and not set up costs nothing."""
    caplog.set_level(logging.WARNING, "aifaceswap")
    assert "opentelemetry.trace" in sys.modules
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    call = get_account()
    assert observe(call, "https://example.com") is observe(call, "https://example.com")


# --- secrets -------------------------------------------------------------------------------


async def test_no_secret_is_in_any_record_or_span(
    records: list[logging.LogRecord], spans: Any, tmp_path: Path
) -> None:
    """Key, bodies, queries, headers and cursors of every kind of call, good and bad."""
    result = "https://127.0.0.1:9/r.jpg?signature=secret-signature"
    done = {**SWAP, "status": "done", "result_url": result, "metadata": {"a": "secret-metadata"}}
    page = {"data": [done], "next_cursor": "secret-cursor"}
    envelope = {
        "error": {"code": "validation_error", "message": "secret-message", "request_id": "r"}
    }
    script = [
        *(answer(200, done), answer(200, page), answer(200, page), reset, answer(200, done)),
        answer(400, envelope),
        answer(200, b'{"id": "secret-body'),
        answer(500, b"<html>secret-page</html>", {"X-Secret": "secret-header"}),
        answer(307, b"", {"Location": "https://example.com/?secret-location"}),
        raw(b"secret-bytes\r\n\r\n"),
        answer(200, ["secret-shape"]),
    ]
    async with ScriptedServer(*script) as server, client_of(server, max_retries=1) as client:
        hasty = client.with_options(max_retries=0)
        swap = await client.swaps.create(
            **URLS, metadata={"a": "secret-metadata"}, webhook_url="https://e.com/?secret-hook"
        )
        async for _ in client.swaps.iterate():
            if len(server.requests) == 3:
                break
        await client.request(
            "POST",
            "/anything",
            params={"q": "secret-param"},
            json={"b": "secret-json"},
            headers={"X-Theirs": "secret-header"},
        )
        for _ in script[5:]:
            with pytest.raises(AIFaceSwapError):
                await hasty.swaps.create(**URLS)
        with pytest.raises(AIFaceSwapError):
            await hasty.swaps.download(swap, tmp_path / "r.jpg")
    seen = [f"{record.getMessage()} {vars(record)}" for record in records]
    seen += [span.to_json() for span in spans.get_finished_spans()]
    # The download asks for a new link, with the last step as the response.
    assert len(server.requests) == len(script) + 1
    assert len(seen) == 2 * len(script) + 1
    for text in seen:
        assert "secret" not in text
        assert KEY not in text
        assert "?" not in text
        assert KEY not in text


async def test_a_message_of_the_service_is_in_neither(
    records: list[logging.LogRecord], spans: Any
) -> None:
    """An answer that cannot be read is quoted in the error, and only there."""
    async with ScriptedServer(answer(200, {"id": "quoted"})) as server, client_of(server) as client:
        with pytest.raises(APIResponseError, match="quoted"):
            await client.swaps.get("tsk_1")
    (span,) = spans.get_finished_spans()
    assert "quoted" not in json.dumps(span.to_json())
    assert "quoted" not in str(vars(records[0]))


# --- docs/observability.md -----------------------------------------------------------------

EXAMPLES = {block.language: block for block in blocks(DOCS / "observability.md")}


def run_example(words: str) -> subprocess.CompletedProcess[str]:
    """The page's program with these words in it, in a process that it may set up as it likes."""
    programs = [block.text for block in blocks(DOCS / "observability.md") if block.language == "py"]
    (program,) = (text for text in programs if words in text)
    with Emulator() as emulator:
        env = {"AIFACESWAP_API_KEY": emulator.api_key, "AIFACESWAP_BASE_URL": emulator.base_url}
        return run(program, **env)


def test_the_pages_log_line() -> None:
    """It is the one that is shown, but for its time and id."""
    done = run_example("JSONFormatter")
    timing = re.compile(r"\d\.\d+|req_\w+")
    assert timing.sub("T", done.stderr) == timing.sub("T", EXAMPLES["json"].text)


def test_the_pages_trace() -> None:
    """Two spans, the call within the order."""
    done = run_example("TracerProvider")
    assert done.stderr == ""
    decoder, text, printed = json.JSONDecoder(), done.stdout, []
    while text := text.strip():
        span, end = decoder.raw_decode(text)
        printed.append(span)
        text = text[end:]
    call, order = printed
    assert [call["name"], order["name"]] == ["POST /swaps", "order 7"]
    assert call["parent_id"] == order["context"]["span_id"]
    assert call["attributes"]["aifaceswap.idempotency_key"] == "order-7"


# --- what goes wrong in logging and tracing --------------------------------------------------


class Broken(logging.Handler):
    """A handler that cannot write: its disk is full, or its queue is closed."""

    def emit(self, record: logging.LogRecord) -> None:
        raise OSError("disk full")


@pytest.fixture
def broken_factory() -> Iterator[None]:
    """A LogRecord factory that sets the fields a web framework sets, and one that fails."""
    original = logging.getLogRecordFactory()

    def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = original(*args, **kwargs)
        record.request_id = record.path = record.status = "of the framework"
        if record.args and record.levelno == logging.INFO:
            raise KeyError("trace id")
        return record

    logging.setLogRecordFactory(factory)
    yield
    logging.setLogRecordFactory(original)


@pytest.mark.usefixtures("broken_factory")
async def test_a_record_factory_breaks_no_call(records: list[logging.LogRecord]) -> None:
    """Neither by fields of the same name nor by an exception."""
    async with ScriptedServer(reset, answer()) as server, client_of(server) as client:
        with pytest.warns(RuntimeWarning, match="failed with KeyError"):
            swap = await client.swaps.create(**URLS)
    assert swap.id == "tsk_1"
    (record,) = records
    assert vars(record)["request_id"] == "of the framework"
    assert fields(record)["status"] == 200


@pytest.mark.parametrize("filtered", ["error", "ignore"])
async def test_a_handler_breaks_no_call(filtered: str) -> None:
    """Whatever it raises, and even if warnings are errors."""
    logger, handler = logging.getLogger("aifaceswap"), Broken()
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        async with (
            ScriptedServer(reset, answer(), refusal(400, "validation_error")) as server,
            client_of(server) as client,
        ):
            with warnings.catch_warnings():
                warnings.simplefilter(filtered)  # type: ignore[arg-type]
                assert (await client.swaps.create(**URLS)).id == "tsk_1"
                with pytest.raises(BadRequestError):
                    await client.swaps.create(**URLS)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)


@pytest.mark.parametrize("moment", ["on_start", "on_end", "should_sample"])
async def test_a_tracer_breaks_no_call(moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a span processor nor a sampler that raises; and the next span is a root again."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("collector is gone")

    processor, sampler = sdk.SpanProcessor(), sampling.StaticSampler(sampling.Decision.RECORD_ONLY)
    setattr(sampler if moment == "should_sample" else processor, moment, fail)
    provider = sdk.TracerProvider(sampler=sampler)
    provider.add_span_processor(processor)
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    async with ScriptedServer(answer()) as server, client_of(server) as client:
        with pytest.warns(RuntimeWarning, match="failed with RuntimeError"):
            assert (await client.swaps.create(**URLS)).id == "tsk_1"
    assert trace.get_current_span() is trace.INVALID_SPAN


async def test_a_provider_breaks_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even one that gives no tracer."""
    monkeypatch.setattr(trace, "get_tracer_provider", object)
    async with ScriptedServer(answer()) as server, client_of(server) as client:
        with pytest.warns(RuntimeWarning, match="failed with AttributeError"):
            assert (await client.swaps.create(**URLS)).id == "tsk_1"
