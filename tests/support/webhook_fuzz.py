"""Random headers and bodies for `parse()`: nothing but its one error, no false accept.

`python tests/support/webhook_fuzz.py 10000000` runs as many cases; the tests run a few.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import sys
from collections import Counter
from random import Random

from aifaceswap import WebhookVerificationError, webhooks

KEYS = ("key_test_123", "key_test_456")
STRANGER = "key_test_789"
NOW = 1_760_000_000
TIMES = (NOW, NOW - 300, NOW + 300, NOW - 301, NOW + 301, 0, NOW * 10**9)

ALPHABET = "tv10=,; \tabcdef0123456789ABCDEFxyz+-_.é٣\0\n\udc80"
JSON_PIECES = (
    *(b'"event"', b'"id"', b'"status"', b'"progress"', b'"error"', b'"metadata"', b'"created_at"'),
    *(b'"swap.completed"', b'"swap.new"', b'"tsk_1"', b'"\\ud800"', b'"', b"\\", b"\xff", b"\0"),
    *(b"{", b"}", b"[", b"]", b":", b",", b" ", b"null", b"true", b"NaN", b"1e999", b"-0", b"7"),
    *(b"[" * 2000, b'{"a":' * 500, b"9" * 5000, b"\xef\xbb\xbf"),
)
FIELDS = ("id", "status", "type", "progress", "credit_cost", "created_at", "result_url", "error")
VALUES: list[object] = [
    *(None, True, 0, -1, 1e300, 10**30, "", "done", "2026-01-01T00:00:00Z", "x" * 300),
    *([], {}),
]

_stamp = re.compile(r"(?:^|,)[ \t]*t=([0-9]+)[ \t]*(?=,|$)", re.ASCII)


def fuzz(count: int, seed: int = 0) -> Counter[str]:
    """Try so many deliveries.

    Args:
        count: How many, from 0 up.
        seed: What they derive from.

    Returns:
        How often each reason was given, and ``accepted``.

    Raises:
        AssertionError: A delivery was accepted that was not signed, or not in time.
        Exception: Whatever else came out of `parse()`.
    """
    random = Random(seed)
    seen: Counter[str] = Counter()
    for _ in range(count):
        body = _body(random)
        header = _header(random, body)
        if random.random() < 0.2:
            body = _mutated(random, body)
        try:
            webhooks.parse(body, header, KEYS, now=NOW)
        except WebhookVerificationError as error:
            seen[error.reason] += 1
        else:
            seen["accepted"] += 1
            assert is_genuine(body, header), (seed, header, body)
    return seen


def is_genuine(body: bytes, header: str | bytes | None) -> bool:
    """Whether a delivery is signed by one of the keys, in time: worked out in another way."""
    text = header.decode("ascii") if isinstance(header, bytes) else header or ""
    stamps = _stamp.findall(text)
    if len(stamps) != 1 or abs(int(stamps[0]) - NOW) > 300:
        return False
    signed = stamps[0].encode() + b"." + body
    digests = (hmac.new(key.encode(), signed, hashlib.sha256).hexdigest() for key in KEYS)
    return any(f"v1={digest}" in text for digest in digests)


def _body(random: Random) -> bytes:
    kind = random.random()
    if kind < 0.1:
        return random.randbytes(random.randrange(60))
    if kind < 0.4:
        return b"".join(random.choices(JSON_PIECES[:-4], k=random.randrange(30)))
    if kind < 0.41:
        return b"".join(random.choices(JSON_PIECES, k=random.randrange(10)))
    fields = {name: random.choice(VALUES) for name in random.sample(FIELDS, random.randrange(4))}
    swap = {"event": "swap.completed", "id": "tsk_1", **fields}
    return json.dumps(swap, ensure_ascii=random.random() < 0.5).encode()


def _header(random: Random, body: bytes) -> str | bytes | None:
    kind = random.random()
    if kind < 0.02:
        return None
    if kind < 0.2:
        return "".join(random.choices(ALPHABET, k=random.randrange(120)))
    stamp = random.choice(TIMES) if random.random() < 0.3 else NOW
    key = random.choice((*KEYS, *KEYS, STRANGER))
    header = webhooks.sign(body, key, timestamp=stamp)
    if kind < 0.4:
        header = header.replace(",", f",{_item(random)},", 1)
    elif kind < 0.7:
        header = _mutated(random, header.encode()).decode("latin-1")
    return header.encode("latin-1") if random.random() < 0.3 else header


def _item(random: Random) -> str:
    name = random.choice(("t", "v1", " v1", "v0", "V1", "", "t\t"))
    return f"{name}={random.choice((str(NOW), '0' * 64, 'f' * 63, '', 'g' * 64))}"


def _mutated(random: Random, data: bytes) -> bytes:
    """The same with a few bytes changed, left out, doubled or put in."""
    changed = bytearray(data)
    for _ in range(random.randrange(1, 4)):
        at = random.randrange(len(changed) + 1)
        kind = random.randrange(4)
        if kind == 0:
            changed[at : at + 1] = random.randbytes(1)
        elif kind == 1:
            del changed[at : at + random.randrange(1, 9)]
        elif kind == 2:
            changed[at:at] = changed[at : at + random.randrange(1, 80)]
        else:
            changed[at:at] = random.choice((b",", b"=", b"0", b" ", b"t=1", b"v1="))
    return bytes(changed)


if __name__ == "__main__":
    print(dict(fuzz(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)))
