"""Where a secret shows when an error is reported with the locals of its frames."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import cache
from types import TracebackType
from typing import Any

import sentry_sdk
from rich.traceback import Traceback
from sentry_sdk.transport import Transport

BEGINNING = 24  # characters by which a secret is recognised


class _Recorder(Transport):
    """Keeps what Sentry would send."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[str] = []

    def capture_envelope(self, envelope: Any) -> None:
        self.sent.append(envelope.serialize().decode(errors="replace"))


def places(error: BaseException, *secrets: str) -> list[str]:
    """The names of reports that show one of the secrets in frames that are not a test's."""
    _leave_out_tests(error)
    beginnings = [secret[:BEGINNING] for secret in secrets]
    reports = list(_reports(error))
    found = [name for name, text in reports for secret in beginnings if secret in text]
    return found + [place for secret in beginnings for place in _objects(error, secret)]


def _leave_out_tests(error: BaseException | None) -> None:
    """Take the frames of tests, which know the secret, off an error and its causes."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        traceback = error.__traceback__
        while traceback is not None and _is_a_test(traceback):
            traceback = traceback.tb_next
        error.__traceback__ = traceback
        error = error.__cause__ or error.__context__


def _is_a_test(traceback: TracebackType) -> bool:
    path = traceback.tb_frame.f_code.co_filename
    return "/tests/" in path


def _reports(error: BaseException) -> Iterator[tuple[str, str]]:
    yield "message", f"{error} {error!r} {vars(error)}"
    yield "rich", _by_rich(error)
    yield "sentry", _by_sentry(error)


def _by_rich(error: BaseException) -> str:
    output = io.StringIO()
    # Longer strings are cut: then a slice is shown by its own repr.
    traceback = Traceback.from_exception(
        type(error), error, error.__traceback__, show_locals=True, locals_max_string=BEGINNING
    )
    # As plain text: colours take most of the time.
    for stack in traceback.trace.stacks:
        for frame in stack.frames:
            output.writelines(str(node) for node in (frame.locals or {}).values())
    return output.getvalue()


@cache
def _sentry() -> tuple[sentry_sdk.Client, _Recorder]:
    """A client with Sentry's default integrations."""
    recorder = _Recorder()
    return sentry_sdk.Client(dsn="http://key@127.0.0.1:9/1", transport=recorder), recorder


def _by_sentry(error: BaseException) -> str:
    client, recorder = _sentry()
    recorder.sent.clear()
    with sentry_sdk.isolation_scope() as scope:
        scope.set_client(client)
        sentry_sdk.capture_exception(error)
    assert recorder.sent
    return "".join(recorder.sent)


def _objects(error: BaseException, secret: str) -> Iterator[str]:
    """Strings and containers of strings in the locals of the package's own frames."""
    seen: set[int] = set()
    errors: list[BaseException | None] = [error]
    while errors:
        current = errors.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        errors += [current.__cause__, current.__context__]
        errors += getattr(current, "exceptions", ())
        for frame_name, local, value in _locals(current.__traceback__):
            if _holds(value, secret, depth=4):
                yield f"{frame_name}:{local}"


def _locals(traceback: TracebackType | None) -> Iterator[tuple[str, str, object]]:
    while traceback is not None:
        frame = traceback.tb_frame
        if frame.f_globals.get("__name__", "").startswith("aifaceswap"):
            for name, value in frame.f_locals.items():
                yield frame.f_code.co_qualname, name, value
        traceback = traceback.tb_next


def _holds(value: object, secret: str, depth: int) -> bool:
    if isinstance(value, str):
        return secret in value
    if isinstance(value, bytes | bytearray):
        return secret.encode() in value
    if depth == 0:
        return False
    inner: list[object] = []
    if isinstance(value, dict):
        inner += [*value, *value.values()]
    elif isinstance(value, list | tuple | set | frozenset):
        inner += value
    elif type(value).__module__.startswith("aifaceswap") and hasattr(value, "__dict__"):
        inner += vars(value).values()
    inner += [cell.cell_contents for cell in getattr(value, "__closure__", None) or ()]
    return any(_holds(item, secret, depth - 1) for item in inner)
