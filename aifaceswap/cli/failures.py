"""What a failure means for the user: exit code, message and what to do next."""

from __future__ import annotations

import asyncio
import math
import os
from typing import TypeVar
from urllib.parse import urlsplit

import attrs
import click
from rich.text import Text

from aifaceswap._limits import API_KEY_VARIABLE, BASE_URL_VARIABLE, DEFAULT_BASE_URL, FILES_VARIABLE
from aifaceswap.cli.context import SITE, CommandContext, command_line
from aifaceswap.cli.rendering import printable, write_error_line
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
    FileStoreError,
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
    UnprocessableContentError,
    UnresolvedRowError,
    UnsupportedMediaTypeError,
    WaitTimeoutError,
)

Failure = AIFaceSwapError | OSError
AnyError = TypeVar("AnyError", bound=Exception)

ERROR, USAGE, FAILED, NO_ACCESS, TIMEOUT = 1, 2, 3, 4, 5
INTERRUPTED, TERMINATED = 130, 143

#: The end of every base URL of the API.
API_PATH = urlsplit(DEFAULT_BASE_URL).path

_COMMANDS_WITH_ID = {"get", "wait", "download"}


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
        text: What to do next; `_placeholders` fills in the words in braces.
    """

    exit_code: int
    text: str


#: The row of an error's own class applies, or that of its nearest base class.
ADVICE: dict[type[BaseException], Advice] = {
    AIFaceSwapError: Advice(ERROR, "{again}"),
    ConfigurationError: Advice(ERROR, "Correct it, then {retry}"),
    InvalidRequestError: Advice(USAGE, "Nothing was sent. See: {help}"),
    APIConnectionError: Advice(ERROR, "Check the network{base_url}. {again}"),
    APITimeoutError: Advice(TIMEOUT, "The service is slow or unreachable. {again}"),
    APIResponseError: Advice(
        ERROR,
        "The response may come from a proxy or another server. Check the network{base_url}. "
        "{again}",
    ),
    APIStatusError: Advice(ERROR, "If the message does not help, contact support. {again}"),
    BadRequestError: Advice(ERROR, "Correct what the message names, then {retry}"),
    SourceUnreachableError: Advice(
        ERROR, "Open both URLs in a private browser window. When both load, {retry}"
    ),
    AuthenticationError: Advice(
        NO_ACCESS,
        f"Set a valid key from your account on {SITE}{{for_base_url}}:\n"
        f"  export {API_KEY_VARIABLE}=<your key>\n{{again}}",
    ),
    InsufficientCreditsError: Advice(
        ERROR, f"Add credits on {SITE} ('aifaceswap me' shows the balance), then {{retry_new}}"
    ),
    NotFoundError: Advice(
        ERROR, "Check the ID. A key sees only its own swaps:\n  aifaceswap list --all"
    ),
    ConflictError: Advice(
        ERROR,
        "The idempotency key is in use. A request with it may still be in progress: wait a minute. "
        "{again}",
    ),
    UnprocessableContentError: Advice(
        ERROR, "An idempotency key belongs to one request: repeat that one, or {retry_new}"
    ),
    PayloadTooLargeError: Advice(ERROR, "Use smaller images."),
    UnsupportedMediaTypeError: Advice(
        ERROR, "SOURCE must be an image; TARGET must match --type: an image or a GIF."
    ),
    ContentRejectedError: Advice(ERROR, "Use other images: these will be rejected again."),
    RateLimitError: Advice(ERROR, "Wait {delay}. {again}"),
    DailyLimitError: Advice(ERROR, "Today's requests are used up. Wait {delay}. {again}"),
    ConcurrencyLimitError: Advice(
        ERROR, "Wait until one of your swaps finishes (aifaceswap list). {again}"
    ),
    ServerError: Advice(ERROR, "The service failed. Wait a minute. {again}"),
    ServiceUnavailableError: Advice(
        ERROR, "The service is off or overloaded. Wait {delay}. {again}"
    ),
    FileStoreError: Advice(ERROR, f"Check the bucket (--files, {FILES_VARIABLE}). {{again}}"),
    SwapFailedError: Advice(FAILED, "Try other images; each attempt is a new swap."),
    WaitTimeoutError: Advice(TIMEOUT, "The swap is still running. {again}"),
    # If its cause is known, the row of the cause applies.
    BulkStoppedError: Advice(ERROR, "Fix the problem above. {again}"),
    UnresolvedRowError: Advice(
        FAILED, "Run the journal with the API key that the row was sent with."
    ),
    JournalError: Advice(
        ERROR, "The journal was not changed. Fix the problem above, or use another journal file."
    ),
    OSError: Advice(ERROR, "Free some space, or use a file that can be written. {again}"),
}

# These need other advice than the rest of their class.
_BY_FIELD = {
    "api_key": Advice(
        NO_ACCESS,
        f"Set your key (from your account on {SITE}):\n  export {API_KEY_VARIABLE}=<your key>\n"
        "Or try it without a key:{emulated}",
    ),
    "files": Advice(
        ERROR,
        "Use public https:// URLs, or a bucket of yours (pip install obstore):\n"
        f"  export {FILES_VARIABLE}=s3://bucket/prefix\nOr try it without a bucket:{{emulated}}",
    ),
    "base_url": Advice(ERROR, f"Correct {BASE_URL_VARIABLE}, or unset it to use {SITE}."),
}
_WRONG_BASE_URL = Advice(
    ERROR, f"{BASE_URL_VARIABLE} probably needs {API_PATH} at the end:{{longer_base_url}}"
)
_NO_SUCH_ENDPOINT = Advice(ERROR, f"Check the base URL{{base_url}}. See: {command_line('doctor')}")
# A private emulator ends with the command, and its swaps with it.
_EMULATED: dict[type[BaseException], Advice] = {
    NotFoundError: Advice(
        ERROR, "A private emulator starts empty. Serve one that stays:\n  aifaceswap emulator"
    ),
    WaitTimeoutError: Advice(
        TIMEOUT, "The private emulator and its swap are gone. To wait longer, {retry_longer}"
    ),
}

#: What the user knows the arguments of the client as.
ARGUMENTS = {
    "concurrency": "--concurrency",
    "source": "SOURCE",
    "target": "TARGET",
    "files": "--files",
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
    "proxy": "--proxy",
}

# What people try who have not read the help.
_KEY_ADVICE = f"The key is read only from the environment:\n  export {API_KEY_VARIABLE}=<your key>"
_MISPLACED = {
    "--emulator": "--emulator goes before the command:{emulated}",
    "--api-key": _KEY_ADVICE,
    "--key": _KEY_ADVICE,
    "--base-url": f"The URL is read only from the environment:\n  export {BASE_URL_VARIABLE}=<url>",
}


def report(error: BaseException, context: CommandContext) -> int:
    """Write to stderr what happened and what to do next, and return the exit code."""
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
    """The advice for an error: that of its own class, or of its nearest base class."""
    error = _cause(error)
    if isinstance(error, ConfigurationError) and error.field in _BY_FIELD:
        return _BY_FIELD[error.field]
    if isinstance(error, NotFoundError) and not context.emulated:
        if _lacks_api_path():
            return _WRONG_BASE_URL
        if context.command not in _COMMANDS_WITH_ID:
            return _NO_SUCH_ENDPOINT
    table = {**ADVICE, **_EMULATED} if context.emulated else ADVICE
    return next(table[kind] for kind in type(error).__mro__ if kind in table)


def describe(error: Failure) -> str:
    """What happened, with variables and options in place of the client's arguments."""
    if isinstance(error, NotFoundError) and _lacks_api_path():
        return f"Not found: {_custom_base_url()} ({error.status})"
    if isinstance(error, APIStatusError):
        return f"{error.message} ({' '.join(str(x) for x in (error.status, error.code) if x)})"
    if isinstance(error, ConfigurationError | InvalidRequestError):
        named = error.message.startswith(error.field)
        field = ARGUMENTS.get(error.field, error.field) if named else ""
        return f"{field}{error.message.removeprefix(error.field)}"
    if isinstance(error, AIFaceSwapError):
        return error.message
    return f"{error.filename or 'output'}: {error.strerror or error}"


def _custom_base_url() -> str:
    return os.environ.get(BASE_URL_VARIABLE, "").rstrip("/")


def _lacks_api_path() -> bool:
    """Whether a base URL is set, and its end is not that of the API."""
    return bool(_custom_base_url()) and not _custom_base_url().endswith(API_PATH)


def next_step(error: Exception, context: CommandContext) -> str:
    """What to do next about an error."""
    return find_advice(error, context).text.format_map(_placeholders(_cause(error), context))


def _report_failure(error: Failure, context: CommandContext) -> int:
    _print_error(describe(error))
    advice = find_advice(error, context)
    error = _cause(error)
    request_id = getattr(error, "request_id", None)
    if request_id:
        write_error_line(f"Request id: {printable(request_id)}")
    key = getattr(error, "idempotency_key", None) or context.idempotency_key
    if key and advice.exit_code != USAGE and context.command != "bulk":
        write_error_line(f"Idempotency key: {printable(key)}")
    _print_next(next_step(error, context))
    return advice.exit_code


def _report_usage(error: click.ClickException, context: CommandContext) -> int:
    _print_error(error.format_message())
    if isinstance(error, CommandError):
        _print_next(error.advice)
    else:
        option = error.option_name if isinstance(error, click.NoSuchOption) else ""
        advice = _MISPLACED.get(option, "See: {help}")
        _print_next(advice.format_map(_placeholders(error, context)))
    return error.exit_code


def _report_stop(how: str, exit_code: int, context: CommandContext) -> int:
    write_error_line(how, style="bold")
    if context.idempotency_key:
        write_error_line(f"Idempotency key: {context.idempotency_key}")
    if context.resume:
        _print_next(_resume_advice(context))
    elif context.emulated:
        write_error_line("The private emulator is gone; nothing was charged.")
    return exit_code


def _print_error(message: str) -> None:
    write_error_line(Text.assemble(("Error:", "bold red"), " ", printable(message)))


def _print_next(advice: str) -> None:
    write_error_line(Text.assemble(("Next:", "bold"), " ", advice))


def _placeholders(error: Exception, context: CommandContext) -> dict[str, str]:
    """What stands for the words in braces of an advice."""
    unknown = getattr(error, "may_have_succeeded", False) and bool(context.resume)
    # After an unknown result a new key could create a second swap.
    retry = f"run:\n  {context.resume if unknown else context.retyped()}"
    own_key = any(word.startswith("--idempotency-key") for word in context.arguments)
    click_context = error.ctx if isinstance(error, click.UsageError) else None
    command = [context.command] if context.command else []
    base_url = "" if context.emulated else _custom_base_url()
    return {
        "again": _resume_advice(context) if context.resume else f"To try again, {retry}",
        "retry": retry,
        "retry_new": "use another --idempotency-key." if own_key and not unknown else retry,
        "retry_longer": f"run:\n  {context.retyped('--timeout', context.longer_timeout)}",
        "delay": format_duration(getattr(error, "retry_after", None)),
        "help": f"{click_context.command_path} --help"
        if click_context
        else command_line(*command, "--help"),
        "emulated": f"\n  {context.retyped(emulated=True)}",
        "base_url": f" and {BASE_URL_VARIABLE} ({printable(base_url)})" if base_url else "",
        "for_base_url": f" for the service at {printable(base_url)}" if base_url else "",
        "longer_base_url": f"\n  export {BASE_URL_VARIABLE}={printable(base_url)}{API_PATH}",
    }


def _resume_advice(context: CommandContext) -> str:
    what = "run" if context.command == "bulk" else "swap"
    return f"Resume the same {what} (nothing is charged twice):\n  {context.resume}"


def _cause(error: AnyError) -> AnyError | Failure:
    """The error that stopped a bulk run, which says more than that it has stopped."""
    cause = error.__cause__ if isinstance(error, BulkStoppedError) else None
    return cause if isinstance(cause, AIFaceSwapError | OSError) else error


def format_duration(seconds: float | None) -> str:
    """A duration in its two largest units; None: an unknown one."""
    if seconds is None:
        return "a minute"
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    days_unit = "day" if days == 1 else "days"
    parts = ((days, days_unit), (hours, "h"), (minutes, "min"), (rest, "s"))
    words = [f"{count} {unit}" for count, unit in parts if count]
    return " ".join(words[:2]) or "a second"
