"""Everything that seems random, derived from the seed: the same run gives the same ids."""

from __future__ import annotations

import hashlib


def digest(seed: int, purpose: str, number: int = 0, size: int = 12) -> bytes:
    """`size` bytes (1 to 64) that depend on all arguments and on nothing else."""
    return hashlib.blake2b(
        b"%d/%s/%d" % (seed, purpose.encode(), number), digest_size=size
    ).digest()


def make_id(seed: int, prefix: str, number: int) -> str:
    """The id of the thing with this number, such as `tsk_` and 24 hex digits."""
    return f"{prefix}_{digest(seed, prefix, number).hex()}"


def fraction(seed: int, purpose: str, number: int) -> float:
    """A number from 0 up to, not including, 1."""
    return int.from_bytes(digest(seed, purpose, number, 6), "big") / 2**48


def user_id(seed: int) -> str:
    """Return the id of the user to whom all keys belong."""
    return f"usr_{digest(seed, 'user').hex()}"
