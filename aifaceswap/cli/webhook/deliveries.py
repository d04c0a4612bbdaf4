"""Deliveries checked and sent by hand."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from aifaceswap import _validation
from aifaceswap._api import codec
from aifaceswap._limits import API_KEY_VARIABLE, SWAP_COMPLETED, SWAP_FAILED
from aifaceswap._validation import Secret
from aifaceswap.cli import rendering, runtime
from aifaceswap.cli.context import CommandContext
from aifaceswap.cli.failures import ERROR, CommandError, format_duration
from aifaceswap.cli.rendering import Display, note
from aifaceswap.client import AsyncClient
from aifaceswap.emulator import DEFAULT_API_KEY, DeliveryRecord, Emulator
from aifaceswap.errors import ConfigurationError, WebhookVerificationError
from aifaceswap.errors import WebhookVerificationReason as Reason
from aifaceswap.models import WebhookEvent
from aifaceswap.webhooks._signature import check, read

_STAMP = re.compile(r"(?:^|,)[ \t]*t=([0-9]{1,12})[ \t]*(?:,|$)")

_SOURCE = "https://example.com/face.jpg"
#: The target with which the emulator's swap ends in such an event.
_TARGETS = {
    SWAP_COMPLETED: "https://example.com/target.jpg",
    SWAP_FAILED: "https://example.com/fails.jpg",
}

#: What to do about a delivery that is not to be believed.
ADVICE = {
    Reason.HEADER_MISSING: "give the delivery's x-aifaceswap-signature header as --header",
    Reason.HEADER_MALFORMED: (
        "give the header's value alone, as it was received: t=<seconds>,v1=<64 hex digits>"
    ),
    Reason.SIGNATURE_MISMATCH: (
        "give the body byte for byte as it was received, and the key that the swap was created "
        "with; during a rotation the old key and the new one, in a --key-file"
    ),
    Reason.TIMESTAMP_OUTSIDE_TOLERANCE: (
        "the signature itself is right: set this machine's clock, or take the delivery for an "
        "old one that somebody has sent again"
    ),
    Reason.BODY_MALFORMED: "whoever sent it has the key, but it is no event of the service",
}
_NEWLINE = "without the newline at its end, the body is the one that was signed: save it without"

#: What to do about an app's answer; the nearest one from below counts.
_STATUS_ADVICE = {
    300: "redirects are not followed: give the URL that this one leads to",
    400: "the app refused it: let it check with the key that signed, which is {key}",
    404: "the app has nothing there: correct --to",
    405: "the app takes no POST there: correct --to",
    406: "look into the app's log",
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
    """Tell whether a delivery is to be believed."""
    keys = find_keys(context, key_file)
    at = time.time() if now is None else now
    event, error = None, None
    try:
        check(body, header, keys, tolerance, at)
        event = read(body)
    except WebhookVerificationError as failure:
        error = failure
    stamp = _STAMP.search(header)
    age = None if stamp is None else round(at - int(stamp[1]), 3)
    if context.shows_table:
        _show_verdict(event, error, age)
    else:
        _write_verdict(event, error, age)
    if error is None:
        return 0
    advice = _NEWLINE if _has_extra_newline(body, header, keys) else ADVICE[error.reason]
    note(f"Next: {advice}")
    return ERROR


def trigger(
    context: CommandContext, url: str, event: str, metadata: Mapping[str, object] | None
) -> int:
    """Have a private emulator send one delivery."""
    (key,) = find_keys(context)
    delivery = runtime.run_job(lambda: _send(key.reveal(), url, event, metadata))
    return _report_delivery(context, delivery)


async def _send(
    key: str, url: str, event: str, metadata: Mapping[str, object] | None
) -> DeliveryRecord:
    parts = urlsplit(url)
    query = f"?{parts.query}" if parts.query else ""
    with Display("Sending the delivery"):
        async with (
            Emulator(
                # Another swap each time: the app would take the same one for a repetition.
                seed=secrets.randbits(63),
                api_key=key,
                duration=0.0,
                deliver_to=f"{parts.scheme}://{parts.netloc}",
            ) as emulator,
            AsyncClient(key, base_url=emulator.base_url, budget=None) as client,
        ):
            await client.swaps.create(
                source_url=_SOURCE,
                target_url=_TARGETS[event],
                webhook_url=f"https://example.com{parts.path or '/'}{query}",
                metadata=metadata,
            )
            await emulator.settle()
            return emulator.deliveries[0]


def _report_delivery(context: CommandContext, delivery: DeliveryRecord) -> int:
    attempt = delivery.attempts[0]
    if context.shows_table:
        answer = f"none ({attempt.error})" if attempt.status is None else str(attempt.status)
        rendering.show_fields(
            [
                ("Event", delivery.event),
                ("Swap", delivery.swap_id),
                ("Sent to", delivery.url or ""),
                ("Answer", answer),
            ]
        )
    else:
        rendering.write_json(
            {
                "event": delivery.event,
                "swap_id": delivery.swap_id,
                "url": delivery.url,
                "status": attempt.status,
                "error": attempt.error,
            }
        )
    if delivery.state == "delivered":
        return 0
    note(f"Next: {_find_next(context, attempt.status)}")
    return ERROR


def _find_next(context: CommandContext, status: int | None) -> str:
    if status is None:
        return "start the app, or correct --to"
    nearest = max((least for least in _STATUS_ADVICE if least <= status), default=300)
    key = DEFAULT_API_KEY if context.emulated else f"the one in {API_KEY_VARIABLE}"
    return _STATUS_ADVICE[nearest].format(key=key)


def _read_keys(path: Path) -> tuple[Secret, ...]:
    secrets = _lines(path)
    try:
        return tuple(map(_validation.api_key, secrets or [Secret("")]))
    except ConfigurationError as error:
        fault = "holds no key" if not secrets else error.message
        message = f"--key-file: {rendering.printable(path)}: {fault}"
        raise CommandError(message, "give a file with one key a line, and nothing else") from None


def _lines(path: Path) -> list[Secret]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [Secret(line) for line in lines if line.strip()]


def _has_extra_newline(body: bytes, header: str, keys: tuple[Secret, ...]) -> bool:
    """Whether an editor or a shell has put a newline behind the body."""
    bare = body.removesuffix(b"\n").removesuffix(b"\r")
    try:
        check(bare, header, keys, float("inf"))
    except WebhookVerificationError:
        return False
    return bare != body


def _show_verdict(
    event: WebhookEvent | None, error: WebhookVerificationError | None, age: float | None
) -> None:
    believed = "yes" if error is None else f"no: {error.reason}"
    fields = [("Believed", believed)]
    if error is not None:
        fields.append(("Reason", error.message))
    if event is not None:
        fields += [("Event", event.event), ("Swap", event.swap.id), ("Status", event.swap.status)]
    if age is not None:
        fields.append(("Signed", f"{format_duration(abs(age))} {'ago' if age >= 0 else 'ahead'}"))
    rendering.show_fields(fields)


def _write_verdict(
    event: WebhookEvent | None, error: WebhookVerificationError | None, age: float | None
) -> None:
    rendering.write_json(
        {
            "believed": error is None,
            "reason": None if error is None else error.reason,
            "message": None if error is None else error.message,
            "age": age,
            "event": None if event is None else event.event,
            "swap": None if event is None else codec.unstructure(event.swap),
        }
    )
