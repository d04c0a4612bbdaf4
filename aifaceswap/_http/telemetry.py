"""What a program can see of its calls: log records and OpenTelemetry spans.

Neither contains the API key, a body, a query, or a message of the service, which may quote one.
Whatever fails in them, the call continues.
"""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from functools import lru_cache, wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self
from urllib.parse import urlsplit

from aifaceswap._api.requests import Call
from aifaceswap._api.responses import RawResponse
from aifaceswap._version import __version__
from aifaceswap.errors import AIFaceSwapError

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer, TracerProvider

_log = logging.getLogger("aifaceswap")

# Known to the conventions of OpenTelemetry; any other method is _OTHER there.
_METHODS = {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"}
_GENERATION = {
    "gen_ai.operation.name": "generate_content",
    "gen_ai.provider.name": "aifaceswap",
    "gen_ai.output.type": "image",
}

P = ParamSpec("P")
Attributes = dict[str, str | int | float]


class CallObserver:
    """Is notified of the course of one call. This one does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """The call has finished."""

    def sending(self) -> None:
        """An attempt begins: its permit was granted."""

    def answered(self, response: RawResponse) -> None:
        """The attempt has a response, of whatever status."""

    def retrying(self, error: AIFaceSwapError, wait: float) -> None:
        """The attempt has failed; the next one follows after `wait` seconds."""


_NULL_OBSERVER = CallObserver()


def observe(call: Call[Any], base_url: str) -> CallObserver:
    """What observes a call; by default next to nothing is done."""
    try:
        tracer = _tracer()
    except Exception as error:  # whatever the program's provider raises
        _report(error)
        tracer = None
    if tracer is None and not _log.isEnabledFor(logging.INFO):
        return _NULL_OBSERVER
    return _LoggingObserver(call, base_url, tracer)


def _tracer() -> Tracer | None:
    """The program's tracer, if it has set one up: OpenTelemetry must be loaded for that."""
    if "opentelemetry.trace" not in sys.modules:
        return None
    from opentelemetry import trace  # noqa: PLC0415 - never loaded for those who do not use it

    provider = trace.get_tracer_provider()
    return None if isinstance(provider, trace.ProxyTracerProvider) else _tracer_of(provider)


@lru_cache(maxsize=1)
def _tracer_of(provider: TracerProvider) -> Tracer:
    return provider.get_tracer("aifaceswap", __version__)


def _contained(method: Callable[P, None]) -> Callable[P, None]:
    """Keep what handlers, factories, samplers and exporters raise away from the call."""

    @wraps(method)
    def contained(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(*args, **kwargs)
        except Exception as error:  # whatever the program's own code raises
            _report(error)

    return contained


def _report(error: Exception) -> None:
    # A filter may turn the warning into an error.
    with suppress(Warning):
        text = f"aifaceswap: logging or tracing of a call failed with {type(error).__name__}"
        warnings.warn(text, RuntimeWarning, stacklevel=2)


class _LoggingObserver(CallObserver):
    """Writes log records of one call, and a span if there is a tracer."""

    def __init__(self, call: Call[Any], base_url: str, tracer: Tracer | None) -> None:
        self._call = call
        self._path = call.path.partition("?")[0]
        self._url = base_url + self._path
        self._tracer = tracer
        self._scope: AbstractContextManager[Span] | None = None
        self._span: Span | None = None
        self._attempts = 0
        self._in_attempt = False
        self._status: int | None = None
        self._request_id: str | None = None
        self._began = time.perf_counter()

    def __enter__(self) -> Self:
        self._open_span()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._finish_span(exc)
        self._close_span()
        self._log_end(exc)

    def sending(self) -> None:
        self._attempts += 1
        self._in_attempt = True
        self._status = self._request_id = None

    def answered(self, response: RawResponse) -> None:
        self._status = response.status
        self._request_id = response.headers.get("x-request-id")

    @_contained
    def retrying(self, error: AIFaceSwapError, wait: float) -> None:
        if self._span is not None:
            self._add_attempt(self._span, error, wait)
        if _log.isEnabledFor(logging.INFO):
            fields = {**self._fields(error), "retry_in": wait}
            text = "%(method)s %(path)s: %(outcome)s, trying again in %(retry_in).1f s"
            self._log(logging.INFO, text, fields, error)

    @_contained
    def _log_end(self, error: BaseException | None) -> None:
        level = logging.DEBUG if error is None else logging.INFO
        if _log.isEnabledFor(level):
            text = "%(method)s %(path)s: %(outcome)s (attempts: %(attempts)d, %(seconds).3f s)"
            self._log(level, text, self._fields(error), error)

    def _log(
        self, level: int, text: str, fields: Mapping[str, object], error: BaseException | None
    ) -> None:
        # Prefixed: the program's own factory of records may use the plain names.
        extra = {f"aifaceswap_{name}": value for name, value in fields.items()}
        _log.log(level, text, {**fields, "outcome": self._outcome(error)}, extra=extra)

    def _fields(self, error: BaseException | None) -> dict[str, object]:
        """The same fields in every record, so that one format serves them all."""
        return {
            "method": self._call.method,
            "path": self._path,
            "status": self._status,
            "attempts": self._attempts,
            "seconds": time.perf_counter() - self._began,
            "request_id": self._id_in(error),
            "idempotency_key": self._call.idempotency_key,
            "error_type": None if error is None else type(error).__name__,
            "retry_in": None,
        }

    def _outcome(self, error: BaseException | None) -> str:
        parts = (self._status, None if error is None else type(error).__name__)
        return " ".join(str(part) for part in parts if part is not None)

    def _id_in(self, error: BaseException | None) -> str | None:
        """The request id, of the headers or of an error's envelope."""
        return self._request_id or getattr(error, "request_id", None)

    @_contained
    def _open_span(self) -> None:
        if self._tracer is not None:
            scope = _open_span(self._tracer, self._call, self._url)
            self._span = scope.__enter__()
            self._scope = scope

    @_contained
    def _close_span(self) -> None:
        if self._scope is not None:
            # Without the error, whose message it would record.
            self._scope.__exit__(None, None, None)

    @_contained
    def _finish_span(self, error: BaseException | None) -> None:
        span = self._span
        if span is None:
            return
        # The call may have ended between two attempts, or before the first.
        if self._in_attempt:
            self._add_attempt(span, error)
        span.set_attributes(self._ending(error))
        if self._attempts > 1:
            span.set_attribute("http.request.resend_count", self._attempts - 1)
        if self._call.idempotency_key is not None:
            span.set_attribute("aifaceswap.idempotency_key", self._call.idempotency_key)
        if error is not None:
            from opentelemetry.trace import StatusCode  # noqa: PLC0415 - as in `_tracer`

            # Without a description: the service's message may quote what was sent.
            span.set_status(StatusCode.ERROR)

    def _add_attempt(
        self, span: Span, error: BaseException | None, wait: float | None = None
    ) -> None:
        self._in_attempt = False
        attributes: Attributes = {"aifaceswap.attempt": self._attempts, **self._ending(error)}
        if wait is not None:
            attributes["aifaceswap.retry_in"] = wait
        span.add_event("aifaceswap.attempt", attributes)

    def _ending(self, error: BaseException | None) -> Attributes:
        """The attributes of how an attempt or a call has finished."""
        known = {
            "http.response.status_code": self._status,
            "error.type": None if error is None else type(error).__name__,
            "aifaceswap.request_id": self._id_in(error),
        }
        return {name: value for name, value in known.items() if value is not None}


def _open_span(tracer: Tracer, call: Call[Any], url: str) -> AbstractContextManager[Span]:
    """The span of a call; it is the current span during the call."""
    from opentelemetry.trace import SpanKind  # noqa: PLC0415 - as in `_tracer`

    method = call.method if call.method in _METHODS else "_OTHER"
    name = method if method in _METHODS else "HTTP"
    attributes: Attributes = {"http.request.method": method, "url.full": url, **_server(url)}
    if method != call.method:
        attributes["http.request.method_original"] = call.method
    if call.template is not None:
        attributes["url.template"] = call.template
        name = f"{name} {call.template}"
    if call.purpose == "create":
        attributes |= _GENERATION
    return tracer.start_as_current_span(name, kind=SpanKind.CLIENT, attributes=attributes)


def _server(url: str) -> Mapping[str, str | int]:
    parts = urlsplit(url)
    default = 443 if parts.scheme == "https" else 80
    return {"server.address": parts.hostname or "", "server.port": parts.port or default}
