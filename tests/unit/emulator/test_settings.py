"""Settings that cannot be."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from aifaceswap.emulator import Emulator, Limits

LOOPBACK = "deliver_to must be an http"


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"seed": 1.5}, TypeError, "seed must be an int; got 1.5"),
        ({"seed": -1}, ValueError, "seed must be from 0 to 9223372036854775807; got -1"),
        ({"clock": "now"}, TypeError, r"clock must be a Clock .*; got 'now'"),
        ({"host": "a/b"}, ValueError, "host must be an address such as .*; got 'a/b'"),
        ({"host": ""}, ValueError, "host must be an address such as .*; got ''"),
        ({"host": None}, TypeError, "host must be a str; got None"),
        ({"port": 70_000}, ValueError, "port must be from 0 to 65535; got 70000"),
        ({"api_key": ""}, ValueError, "api_key must be visible ASCII"),
        ({"api_key": "a b"}, ValueError, "api_key must be visible ASCII"),
        ({"api_key": b"k"}, TypeError, "api_key must be a str; got bytes"),
        ({"credits": -1}, ValueError, "credits must be at least 0; got -1"),
        ({"limits": 60}, TypeError, r"limits must be a Limits\(...\) or None; got 60"),
        ({"duration": float("inf")}, ValueError, "duration must be a finite number"),
        ({"spread": 4}, ValueError, r"spread must be at most duration \(3.0\); got 4"),
        ({"result_ttl": 0}, ValueError, "result_ttl must be greater than 0; got 0"),
        ({"deliver_to": "http://10.0.0.1"}, ValueError, LOOPBACK),
        ({"deliver_to": "127.0.0.1:80"}, ValueError, LOOPBACK),
        ({"deliver_to": "ftp://127.0.0.1"}, ValueError, LOOPBACK),
        ({"deliver_to": "http://localhost/x"}, ValueError, LOOPBACK),
        ({"deliver_to": "http://u@localhost"}, ValueError, LOOPBACK),
        ({"deliver_to": "http://localhost:99999"}, ValueError, LOOPBACK),
        ({"deliver_to": "http://[::1"}, ValueError, LOOPBACK),
        ({"deliver_to": 8000}, TypeError, "deliver_to must be a str or None; got 8000"),
        (
            {"deliver_to": "http://a/b", "host": "0.0.0.0"},
            ValueError,
            r"deliver_to must be an http\(s\) origin such as .*; got 'http://a/b'",
        ),
        ({"faults": "reset"}, TypeError, r"faults\[0\] must be a Fault\(...\); got 'r'"),
        ({"faults": 7}, TypeError, "faults must be a list of Fault; got 7"),
        ({"faults": [None]}, TypeError, r"faults\[0\] must be a Fault\(...\); got None"),
    ],
)
def test_impossible_settings_are_refused(
    settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    """Constructor errors name the field, the value and what would be right."""
    with pytest.raises(error, match=message):
        Emulator(**settings)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"per_minute": 0}, ValueError, "per_minute must be at least 1; got 0"),
        ({"per_day": 1.5}, TypeError, "per_day must be an int; got 1.5"),
        ({"concurrent": True}, TypeError, "concurrent must be an int; got True"),
        ({"window": None}, TypeError, "window must be a number; got None"),
        ({"window": 0}, ValueError, "window must be greater than 0; got 0"),
    ],
)
def test_impossible_limits_are_refused(
    settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    """Limits are positive whole numbers or None."""
    with pytest.raises(error, match=message):
        Limits(**settings)


def test_settings_cannot_be_changed_later() -> None:
    """Assigning a setting is an error, instead of doing nothing."""
    emulator = Emulator()
    with pytest.raises(attrs.exceptions.FrozenAttributeError):
        emulator.duration = 1.0
