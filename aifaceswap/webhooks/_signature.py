"""Signatures of webhook deliveries: sign, verify, and read verified bodies."""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Iterable
from typing import Final, cast

from aifaceswap import _limits
from aifaceswap._api import codec
from aifaceswap._validation import Secret
from aifaceswap.errors import (
    ConfigurationError,
    WebhookVerificationError,
    WebhookVerificationReason,
)
from aifaceswap.models import WebhookEvent

#: The name of the header that holds a delivery's signature, in lower case.
SIGNATURE_HEADER: Final = _limits.SIGNATURE_HEADER

#: How far a delivery's time may differ from ours, in seconds, back and ahead.
TOLERANCE: Final = _limits.SIGNATURE_TOLERANCE

_MAX_HEADER = 1024
_hex_digest = re.compile(r"[0-9a-f]{64}").fullmatch
_usual_header = re.compile(r"t=([0-9]+),v1=([0-9a-f]{64})").fullmatch


def parse(
    body: bytes | bytearray | memoryview,
    header: str | bytes | None,
    keys: str | Iterable[str],
    *,
    tolerance: float = TOLERANCE,
    now: float | None = None,
) -> WebhookEvent:
    """Verify a webhook delivery and read it.

    Args:
        body: The raw body, byte for byte as it was received.
        header: The value of the ``x-aifaceswap-signature`` header; None if it is missing.
        keys: The API keys that may have signed it; the key itself is the secret. During a
            rotation the new one and the old one.
        tolerance: Seconds that the delivery's time may differ from `now`, back and ahead.
        now: Unix time in seconds; None: the system's clock.

    Returns:
        The event. Events and fields that are new to this package are passed on.

    Raises:
        WebhookVerificationError: Verification failed; ``reason`` says why. No header and no
            body raises anything else.
        TypeError: `body` is not bytes: a body that was decoded before cannot be verified.
        ConfigurationError: `keys` holds no key, or something that cannot be a key.
    """
    secrets = wrap_keys(keys)
    del keys
    raw = _raw(body)
    check(raw, header, signing_keys(secrets), tolerance, now)
    return read(raw)


def verify(
    body: bytes | bytearray | memoryview,
    header: str | bytes | None,
    keys: str | Iterable[str],
    *,
    tolerance: float = TOLERANCE,
    now: float | None = None,
) -> None:
    """Verify a webhook delivery without reading its body.

    Args:
        body: As in `parse`.
        header: As in `parse`.
        keys: As in `parse`.
        tolerance: As in `parse`.
        now: As in `parse`.

    Raises:
        WebhookVerificationError: Verification failed; ``reason`` says why.
        TypeError: `body` is not bytes.
        ConfigurationError: `keys` holds no key, or something that cannot be a key.
    """
    secrets = wrap_keys(keys)
    del keys
    check(_raw(body), header, signing_keys(secrets), tolerance, now)


def check(
    body: bytes,
    header: str | bytes | None,
    secrets: Iterable[Secret],
    tolerance: float,
    now: float | None = None,
) -> None:
    """Do what `verify` does, with keys that were checked before.

    Args:
        body: The raw body.
        header: The value of the signature header, or None.
        secrets: What `signing_keys` returned.
        tolerance: Seconds that the delivery's time may differ from `now`.
        now: Unix time in seconds; None: the system's clock.

    Raises:
        WebhookVerificationError: Verification failed.
    """
    stamp, signatures = _read_header(_header_text(header))
    signed = b"%b.%b" % (stamp.encode(), body)
    if not _is_signed(signed, signatures, secrets):
        fault = "the signature does not match this body with any of the keys given"
        raise WebhookVerificationError(fault, reason=WebhookVerificationReason.SIGNATURE_MISMATCH)
    _check_time(stamp, tolerance, time.time() if now is None else now)


def _is_signed(signed: bytes, signatures: Iterable[str], secrets: Iterable[Secret]) -> bool:
    """Whether one of the keys made one of the signatures; raises nothing, as it holds keys."""
    is_signed = False
    # All keys and signatures, always: the duration must not depend on which one matches.
    for secret in secrets:
        digest = hmac.digest(secret.reveal().encode(), signed, "sha256").hex()
        for signature in signatures:
            is_signed |= hmac.compare_digest(digest, signature)
    return is_signed


def read(body: bytes) -> WebhookEvent:
    """Read a verified body.

    Args:
        body: The raw body.

    Returns:
        The event.

    Raises:
        WebhookVerificationError: The body is not an event.
    """
    try:
        return codec.structure(codec.loads(body), WebhookEvent)
    except (codec.NotJSONError, codec.ShapeError) as error:
        fault = f"the signature is valid, but the body is not an event: {error}"
    raise WebhookVerificationError(fault, reason=WebhookVerificationReason.BODY_MALFORMED)


def sign(body: bytes | bytearray | memoryview, key: str, *, timestamp: int | None = None) -> str:
    """Sign a body as the service does, for tests and for servers that play the service.

    Args:
        body: The raw body.
        key: The API key.
        timestamp: Unix time in seconds, an integer, 0 or more; None: the system's clock.

    Returns:
        The value of the ``x-aifaceswap-signature`` header.

    Raises:
        TypeError: `body` is not bytes.
        ConfigurationError: `key` is empty or cannot be a key.
    """
    secrets = (Secret(key),)
    del key
    (secret,) = signing_keys(secrets)
    return sign_with(secret, _raw(body), int(time.time()) if timestamp is None else timestamp)


def sign_with(secret: Secret, body: bytes, stamp: int) -> str:
    """Sign a body with a key that was checked before."""
    signed = b"%d.%b" % (stamp, body)
    return f"t={stamp},v1={hmac.digest(secret.reveal().encode(), signed, 'sha256').hex()}"


def wrap_keys(keys: object) -> tuple[Secret, ...]:
    """Hide keys before anything can fail; `signing_keys` checks them."""
    if isinstance(keys, Iterable) and not isinstance(keys, str | bytes):
        return tuple(map(Secret, cast("Iterable[object]", keys)))
    return (Secret(keys),)


def signing_keys(secrets: tuple[Secret, ...]) -> tuple[Secret, ...]:
    """Check that these can be keys. Their values appear in no message.

    Args:
        secrets: The keys, wrapped.

    Returns:
        The same.

    Raises:
        ConfigurationError: There is none, or one is empty or cannot be a key.
    """
    if not secrets:
        raise ConfigurationError("keys must hold at least one API key; got none", field="keys")
    for secret in secrets:
        if secret.kind != "str":
            text = f"keys must be an API key (a string) or several; got {secret.kind}"
            raise ConfigurationError(text, field="keys")
        # With an empty key anybody could sign.
        if not _can_sign(secret):
            raise ConfigurationError(
                "keys must be API keys: visible ASCII without spaces; one of them is empty or "
                "contains another character",
                field="keys",
            )
    return secrets


def _can_sign(secret: Secret) -> bool:
    key = secret.reveal()
    return bool(key) and key.isascii() and key.isprintable() and " " not in key


def _raw(body: bytes | bytearray | memoryview) -> bytes:
    if isinstance(body, bytes):
        return body
    # Also what a type checker has not seen: a string, or JSON that was decoded.
    if not isinstance(body, bytearray | memoryview):  # pyright: ignore[reportUnnecessaryIsInstance]
        kind = type(body).__name__
        raise TypeError(f"body must be the raw bytes as they were received; got {kind}")
    return bytes(body)


def _header_text(header: object) -> str:
    if header is None:
        fault = f"the {SIGNATURE_HEADER} header is missing"
        raise WebhookVerificationError(fault, reason=WebhookVerificationReason.HEADER_MISSING)
    if not isinstance(header, str | bytes):
        raise TypeError(f"header must be a string; got {type(header).__name__}")
    if len(header) > _MAX_HEADER:
        raise _malformed(f"is longer than {_MAX_HEADER} bytes")
    if not header.isascii():
        raise _malformed("is not ASCII")
    return header.decode() if isinstance(header, bytes) else header


def _read_header(header: str) -> tuple[str, list[str]]:
    """The time as it was written, and the well-formed signatures."""
    if usual := _usual_header(header):
        return usual[1], [usual[2]]
    stamps: list[str] = []
    signatures: list[str] = []
    for item in header.split(","):
        scheme, _, value = item.strip(" \t").partition("=")
        if scheme == "t":
            stamps.append(value)
        elif scheme == "v1" and _hex_digest(value):
            signatures.append(value)
    if len(stamps) != 1 or not stamps[0].isdigit():
        raise _malformed("must contain exactly one numeric t= value")
    if not signatures:
        raise _malformed("must contain a v1= value of 64 lower-case hex digits")
    return stamps[0], signatures


def _malformed(fault: str) -> WebhookVerificationError:
    text = f"the {SIGNATURE_HEADER} header {fault}"
    return WebhookVerificationError(text, reason=WebhookVerificationReason.HEADER_MALFORMED)


def _check_time(stamp: str, tolerance: float, now: float) -> None:
    # Compared as an integer: one of a thousand digits is too large to become a float.
    if not now - tolerance <= int(stamp) <= now + tolerance:
        fault = f"the signature is more than {tolerance:g} s old or ahead"
        reason = WebhookVerificationReason.TIMESTAMP_OUTSIDE_TOLERANCE
        raise WebhookVerificationError(fault, reason=reason)
