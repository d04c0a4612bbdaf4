"""The commands that verify and send single deliveries."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from aifaceswap import _validation
from aifaceswap._api import codec
from aifaceswap._api.requests import USER_AGENT
from aifaceswap._limits import API_KEY_VARIABLE, SIGNATURE_HEADER, SWAP_COMPLETED
from aifaceswap._validation import Secret
from aifaceswap.cli import rendering, runtime
from aifaceswap.cli.context import CommandContext
from aifaceswap.cli.failures import ERROR, CommandError, format_duration
from aifaceswap.cli.rendering import Display, note
from aifaceswap.cli.webhook.sending import SendResult, new_session, send_delivery
from aifaceswap.emulator import DEFAULT_API_KEY
from aifaceswap.errors import ConfigurationError, WebhookVerificationError
from aifaceswap.errors import WebhookVerificationReason as Reason
from aifaceswap.models import WebhookEvent
from aifaceswap.webhooks._signature import check, read, sign_with

_DAY = 86_400
_STAMP = re.compile(r"(?:^|,)[ \t]*t=([0-9]{1,11})[ \t]*(?:,|$)")

#: What to do about a delivery that fails verification.
ADVICE = {
    Reason.HEADER_MISSING: "Pass the delivery's x-aifaceswap-signature header as --header.",
    Reason.HEADER_MALFORMED: (
        "Pass only the value of the header, as received: t=<seconds>,v1=<64 hex digits>"
    ),
    Reason.SIGNATURE_MISMATCH: (
        "Use the body byte for byte as received, and the key that created the swap. During a "
        "key rotation, put the old and the new key in a --key-file."
    ),
    Reason.TIMESTAMP_OUTSIDE_TOLERANCE: (
        "The signature itself is valid. Check this machine's clock. If it is right, this is an "
        "old delivery that was sent again."
    ),
    Reason.BODY_MALFORMED: "The sender has the key, but the body is not an event of the service.",
}
_NEWLINE = "Remove the newline at the end of the body: without it, the signature is valid."

#: What to do about an app's status; the nearest one from below applies.
_STATUS_ADVICE = {
    300: "Redirects are not followed. Use the URL that this one redirects to.",
    400: "The app rejected it. It must verify with the key that signed, which is {key}.",
    404: "The app does not serve this path. Correct --to.",
    405: "The app does not accept POST at this path. Correct --to.",
    406: "Check the app's log.",
}


def find_keys(context: CommandContext, key_file: Path | None = None) -> tuple[Secret, ...]:
    """The keys that may sign."""
    if key_file is not None:
        return _read_keys(key_file)
    if context.emulated:
        return (Secret(DEFAULT_API_KEY),)
    return (_validation.api_key(runtime.read_key()),)


def verify(
    context: CommandContext,
    body: bytes,
    *,
    header: str,
    key_file: Path | None,
    tolerance: float,
    now: float | None,
) -> int:
    """Verify a delivery, and return the exit code."""
    keys = find_keys(context, key_file)
    at = time.time() if now is None else now
    event, error = None, None
    try:
        check(body, header, keys, tolerance, at)
        event = read(body)
    except WebhookVerificationError as failure:
        error = failure
    stamp = _STAMP.search(header)
    signed = None if stamp is None else int(stamp[1])
    show = _show_verdict if context.shows_table else _write_verdict
    show(event, error, signed, at)
    if error is None:
        return 0
    advice = _NEWLINE if _has_extra_newline(body, header, keys) else ADVICE[error.reason]
    note(f"Next: {advice}")
    return ERROR


def trigger(
    context: CommandContext, url: str, event: str, metadata: Mapping[str, object] | None
) -> int:
    """Sign one delivery and post it, and return the exit code."""
    (key,) = find_keys(context)
    # A new swap each time: the app would treat the same one as a duplicate.
    swap_id = f"tsk_{secrets.token_hex(8)}"
    body = codec.dumps({"event": event, **_swap(swap_id, event, metadata)})
    result = runtime.run_job(lambda: _send(url, body, key))
    return _report_result(context, {"event": event, "swap_id": swap_id, "url": url}, result)


def _swap(swap_id: str, event: str, metadata: Mapping[str, object] | None) -> dict[str, object]:
    """A swap as the service describes one that has finished."""
    is_done = event == SWAP_COMPLETED
    return {
        "id": swap_id,
        "type": "image",
        "status": "done" if is_done else "failed",
        "credit_cost": 1,
        "progress": 100,
        "created_at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "result_url": f"https://example.com/results/{swap_id}.jpg" if is_done else None,
        "error": None if is_done else {"code": "processing_failed", "message": "A test failure."},
        "metadata": metadata,
        "webhook_url": "https://example.com/hooks/swap",
    }


async def _send(url: str, body: bytes, key: Secret) -> SendResult:
    with Display("Sending the delivery"):
        async with new_session() as session:
            headers = {
                "Content-Type": "application/json",
                "User-Agent": USER_AGENT,
                SIGNATURE_HEADER: sign_with(key, body, int(time.time())),
            }
            return await send_delivery(session, url, body, headers)


def _report_result(context: CommandContext, sent: dict[str, str], result: SendResult) -> int:
    if context.shows_table:
        response = f"none ({result.error})" if result.status is None else str(result.status)
        rendering.show_fields(
            [
                ("Event", sent["event"]),
                ("Swap", sent["swap_id"]),
                ("Sent to", sent["url"]),
                ("Response", response),
            ]
        )
    else:
        rendering.write_json({**sent, "status": result.status, "error": result.error})
    if result.succeeded:
        return 0
    note(f"Next: {_find_next(context, result.status)}")
    return ERROR


def _find_next(context: CommandContext, status: int | None) -> str:
    if status is None:
        return "Start the app, or correct --to."
    nearest = max((least for least in _STATUS_ADVICE if least <= status), default=300)
    key = DEFAULT_API_KEY if context.emulated else f"the one in {API_KEY_VARIABLE}"
    return _STATUS_ADVICE[nearest].format(key=key)


def _read_keys(path: Path) -> tuple[Secret, ...]:
    secrets = _lines(path)
    try:
        return tuple(map(_validation.api_key, secrets or [Secret("")]))
    except ConfigurationError as error:
        reason = error.message.removeprefix("api_key ") if secrets else "contains no key"
        message = f"--key-file: {rendering.printable(path)}: {reason}"
        raise CommandError(message, "Use a file with one key a line and nothing else.") from None


def _lines(path: Path) -> list[Secret]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [Secret(line) for line in lines if line.strip()]


def _has_extra_newline(body: bytes, header: str, keys: tuple[Secret, ...]) -> bool:
    """Whether an editor or a shell has added a newline to the body."""
    bare = body.removesuffix(b"\n").removesuffix(b"\r")
    try:
        check(bare, header, keys, float("inf"))
    except WebhookVerificationError:
        return False
    return bare != body


def _show_verdict(
    event: WebhookEvent | None,
    error: WebhookVerificationError | None,
    signed: int | None,
    at: float,
) -> None:
    verdict = "valid" if error is None else f"invalid ({error.reason})"
    fields = [("Signature", verdict)]
    if error is not None:
        fields.append(("Reason", error.message))
    if event is not None:
        fields += [("Event", event.event), ("Swap", event.swap.id), ("Status", event.swap.status)]
    if signed is not None:
        fields.append(("Signed", _describe_age(signed, at)))
    rendering.show_fields(fields)


def _describe_age(signed: int, at: float) -> str:
    """When a delivery was signed, and how long ago: in days, if there are any."""
    age = abs(at - signed)
    days = int(age // _DAY)
    span = f"{days} {'day' if days == 1 else 'days'}" if days else format_duration(age)
    direction = "ago" if at >= signed else "ahead"
    return f"{datetime.fromtimestamp(signed, UTC):%Y-%m-%d %H:%M} UTC ({span} {direction})"


def _write_verdict(
    event: WebhookEvent | None,
    error: WebhookVerificationError | None,
    signed: int | None,
    at: float,
) -> None:
    rendering.write_json(
        {
            "valid": error is None,
            "reason": None if error is None else error.reason,
            "message": None if error is None else error.message,
            "age": None if signed is None else round(at - signed, 3),
            "event": None if event is None else event.event,
            "swap": None if event is None else codec.unstructure(event.swap),
        }
    )
