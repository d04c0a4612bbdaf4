"""What a failure means for the user: exit code, words, and what to do next."""

from __future__ import annotations

import asyncio
import math
from typing import TypeVar

import attrs
import click
from rich.text import Text

from aifaceswap._limits import API_KEY_VARIABLE, BASE_URL_VARIABLE
from aifaceswap.cli.context import SITE, CommandContext, command_line
from aifaceswap.cli.rendering import note, printable
from aifaceswap.errors import (
    AIFaceSwapError,
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    BulkStoppedError,
    ConcurrencyLimitError,
    ConfigurationError,
    ConflictError,
    ContentRejectedError,
    DailyLimitError,
    InsufficientCreditsError,
    InvalidRequestError,
    JournalError,
    NotFoundError,
    PayloadTooLargeError,
    RateLimitError,
    ServerError,
    ServiceUnavailableError,
    SourceUnreachableError,
    SwapFailedError,
    UnsupportedMediaTypeError,
    WaitTimeoutError,
)

Failure = AIFaceSwapError | OSError
AnyError = TypeVar("AnyError", bound=Exception)

ERROR, USAGE, FAILED, NO_ACCESS, TIMEOUT = 1, 2, 3, 4, 5
INTERRUPTED, TERMINATED = 130, 143


class CommandError(click.ClickException):
    """A failure that only the command knows, with its own advice.

    Args:
        message: What happened.
        advice: What to do next.
    """

    def __init__(self, message: str, advice: str) -> None:
        super().__init__(message)
        self.advice = advice


@attrs.frozen
class Advice:
    """What one kind of failure means.

    Attributes:
        exit_code: What the process ends with.
        text: What to do next; the words in braces are those of `_words`.
    """

    exit_code: int
    text: str


#: The row of an error's own class counts, or that of the nearest one above.
ADVICE: dict[type[BaseException], Advice] = {
    AIFaceSwapError: Advice(ERROR, "{again}"),
    ConfigurationError: Advice(ERROR, f"correct {BASE_URL_VARIABLE}, or unset it to use {SITE}"),
    InvalidRequestError: Advice(USAGE, "nothing was sent; correct it ({help})"),
    APIConnectionError: Advice(
        ERROR, f"check the network (and {BASE_URL_VARIABLE}, if you have set it), then {{again}}"
    ),
    APITimeoutError: Advice(TIMEOUT, "the service is slow or out of reach; in a minute, {again}"),
    APIResponseError: Advice(
        ERROR, "a proxy may have answered in the service's place; without it, {again}"
    ),
    APIStatusError: Advice(ERROR, "if the message does not help, ask support; or {again}"),
    BadRequestError: Advice(ERROR, "correct what the message names, then {retry}"),
    SourceUnreachableError: Advice(
        ERROR, "open both URLs in a private browser window; once they load there, {retry}"
    ),
    AuthenticationError: Advice(
        NO_ACCESS,
        f"export {API_KEY_VARIABLE}=<a live key> (make one in your account on {SITE}; it must "
        f"belong to {BASE_URL_VARIABLE}, if you have set that), then {{retry}}",
    ),
    InsufficientCreditsError: Advice(
        ERROR, f"top up on {SITE} ('aifaceswap me' shows what is left), then {{fresh}}"
    ),
    NotFoundError: Advice(
        ERROR, "check the id; a key sees no swaps but its own:\n  aifaceswap list --all"
    ),
    ConflictError: Advice(
        ERROR, "the key was used for another request: repeat that one exactly, or {fresh}"
    ),
    PayloadTooLargeError: Advice(ERROR, "use smaller pictures"),
    UnsupportedMediaTypeError: Advice(
        ERROR, "SOURCE must be a picture, and TARGET what --type says: an image or a gif"
    ),
    ContentRejectedError: Advice(ERROR, "use other pictures; these would be refused again"),
    RateLimitError: Advice(ERROR, "{wait}, then {again}"),
    DailyLimitError: Advice(ERROR, "the day's requests are used up; {wait}, then {again}"),
    ConcurrencyLimitError: Advice(
        ERROR, "wait until one of your swaps has ended (aifaceswap list), then {again}"
    ),
    ServerError: Advice(
        ERROR, "the service failed (its support asks for the request id); in a minute, {again}"
    ),
    ServiceUnavailableError: Advice(
        ERROR, "the service is off or overloaded; {wait}, then {again}"
    ),
    SwapFailedError: Advice(FAILED, "use other pictures; each try is a new swap"),
    WaitTimeoutError: Advice(TIMEOUT, "the swap goes on; {again}"),
    # Where its cause is known, that one's row counts.
    BulkStoppedError: Advice(ERROR, "mend what the message names, then {again}"),
    JournalError: Advice(
        ERROR, "the journal is as it was; do what the message says, or give another --journal"
    ),
    OSError: Advice(ERROR, "make room or give a file that can be written, then {again}"),
}

_BAD_KEY = Advice(
    NO_ACCESS,
    f"export {API_KEY_VARIABLE}=<your key> (from your account on {SITE}), "
    "or try it without one:{emulated}",
)
# What is another matter with a private emulator, which ends with the command.
_EMULATED: dict[type[BaseException], Advice] = {
    NotFoundError: Advice(
        ERROR, "a private emulator begins empty; serve one that stays:\n  aifaceswap emulator"
    ),
    WaitTimeoutError: Advice(
        TIMEOUT, "the private emulator is gone, and the swap with it; with more time, {retry}"
    ),
}

#: What the user knows the arguments of the client as.
ARGUMENTS = {
    "concurrency": "--concurrency",
    "source_url": "SOURCE",
    "target_url": "TARGET",
    "swap_id": "ID",
    "swap": "ID",
    "type": "--type",
    "webhook_url": "--webhook-url",
    "target_face_index": "--face-index",
    "enable_face_enhancer": "--enhance",
    "metadata": "--metadata",
    "idempotency_key": "--idempotency-key",
    "path": "--output",
    "limit": "--limit",
    "cursor": "--cursor",
    "timeout": "--timeout",
    "api_key": API_KEY_VARIABLE,
    "base_url": BASE_URL_VARIABLE,
}

# What people try that have not read the help.
_KEY_ADVICE = f"the key is read from the environment alone: export {API_KEY_VARIABLE}=<your key>"
_MISPLACED = {
    "--emulator": "--emulator stands before the command:{emulated}",
    "--api-key": _KEY_ADVICE,
    "--key": _KEY_ADVICE,
    "--base-url": f"the URL is read from the environment alone: export {BASE_URL_VARIABLE}=<url>",
}


def report(error: BaseException, context: CommandContext) -> int:
    """Say on stderr what happened and what to do next."""
    if isinstance(error, click.Abort | KeyboardInterrupt):
        return _report_stop("Interrupted.", INTERRUPTED, context)
    if isinstance(error, asyncio.CancelledError):
        return _report_stop("Terminated.", TERMINATED, context)
    if isinstance(error, click.ClickException):
        return _report_usage(error, context)
    if isinstance(error, AIFaceSwapError | OSError):
        return _report_failure(error, context)
    if context.resume:
        _print_next(_resume_advice(context))
    raise error


def find_advice(error: Exception, context: CommandContext) -> Advice:
    """The row for an error: that of its own class, or of the nearest one above."""
    if isinstance(error, ConfigurationError) and error.field == "api_key":
        return _BAD_KEY
    error = _cause(error)
    table = {**ADVICE, **_EMULATED} if context.emulated else ADVICE
    return next(table[kind] for kind in type(error).__mro__ if kind in table)


def describe(error: Failure) -> str:
    """What happened, in the words of the user: variables and options in place of arguments."""
    if isinstance(error, APIStatusError):
        return f"{error.message} ({' '.join(str(x) for x in (error.status, error.code) if x)})"
    if isinstance(error, ConfigurationError | InvalidRequestError):
        named = error.message.startswith(error.field)
        field = ARGUMENTS.get(error.field, error.field) if named else ""
        return f"{field}{error.message.removeprefix(error.field)}"
    if isinstance(error, AIFaceSwapError):
        return error.message
    return f"{error.filename or 'output'}: {error.strerror or error}"


def next_step(error: Exception, context: CommandContext) -> str:
    """What to do next about an error."""
    return find_advice(error, context).text.format_map(_placeholders(_cause(error), context))


def _report_failure(error: Failure, context: CommandContext) -> int:
    _print_error(describe(error))
    advice = find_advice(error, context)
    error = _cause(error)
    request_id = getattr(error, "request_id", None)
    if request_id:
        note(f"Request id: {printable(request_id)}")
    key = getattr(error, "idempotency_key", None) or context.idempotency_key
    if key and advice.exit_code != USAGE and context.command != "bulk":
        note(f"Idempotency key: {printable(key)}")
    _print_next(next_step(error, context))
    return advice.exit_code


def _report_usage(error: click.ClickException, context: CommandContext) -> int:
    _print_error(error.format_message())
    if isinstance(error, CommandError):
        _print_next(error.advice)
    else:
        option = error.option_name if isinstance(error, click.NoSuchOption) else ""
        _print_next(_MISPLACED.get(option, "{help}").format_map(_placeholders(error, context)))
    return error.exit_code


def _report_stop(how: str, exit_code: int, context: CommandContext) -> int:
    note(how, style="bold")
    if context.idempotency_key:
        note(f"Idempotency key: {context.idempotency_key}")
    if context.resume:
        _print_next(_resume_advice(context))
    elif context.emulated:
        note("The private emulator is gone; nothing was paid.")
    return exit_code


def _print_error(message: str) -> None:
    note(Text.assemble(("Error:", "bold red"), " ", printable(message)))


def _print_next(advice: str) -> None:
    note(Text.assemble(("Next:", "bold"), " ", advice))


def _placeholders(error: Exception, context: CommandContext) -> dict[str, str]:
    """What the advice may speak of."""
    retry = f"run\n  {context.retyped()}"
    own_key = any(word.startswith("--idempotency-key") for word in context.arguments)
    click_context = error.ctx if isinstance(error, click.UsageError) else None
    command = [context.command] if context.command else []
    help_line = (
        f"{click_context.command_path} --help"
        if click_context
        else command_line(*command, "--help")
    )
    return {
        "again": _resume_advice(context) if context.resume else retry,
        "retry": retry,
        "fresh": "run it with another --idempotency-key" if own_key else retry,
        "wait": f"wait {format_duration(getattr(error, 'retry_after', None))}",
        "help": help_line,
        "emulated": f"\n  {context.retyped(emulated=True)}",
    }


def _resume_advice(context: CommandContext) -> str:
    what = "run; nothing is" if context.command == "bulk" else "swap, which is not"
    return f"go on with the same {what} paid twice:\n  {context.resume}"


def _cause(error: AnyError) -> AnyError | Failure:
    """What stopped a run of many swaps says more than that it has stopped."""
    cause = error.__cause__ if isinstance(error, BulkStoppedError) else None
    return cause if isinstance(cause, AIFaceSwapError | OSError) else error


def format_duration(seconds: float | None) -> str:
    """A time in words; None: one of unknown length."""
    if seconds is None:
        return "a minute"
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (rest, "s"))
    return " ".join(f"{count} {unit}" for count, unit in parts if count) or "a second"
