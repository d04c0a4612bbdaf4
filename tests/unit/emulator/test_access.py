"""What browsers and strangers can do to the emulator: nothing, and they leave little behind."""

from __future__ import annotations

import asyncio
import time

import pytest

from aifaceswap.emulator import Emulator, Fault, faults
from aifaceswap.emulator._service import request_log
from aifaceswap.emulator.faults import fits
from support.emulator_wire import BODY, JSON_TYPE, connected, creation, exchange, raw
from support.emulator_world import make_world

PATHS = ["/api/v1/swaps", "/openapi.json", "/results/x.jpg", "/", "/_emulator/clock", "/x"]
FOREIGN = [
    b"evil.com",
    b"evil.com:8700",
    b"127.0.0.1.evil.com",
    b"evil.com@127.0.0.1",
    b"127.0.0.1/.evil.com",
    b"127.0.0.1 evil.com",
    b"[::1].evil.com",
    b"evil",
    b"",
]


def with_host(host: bytes, path: str) -> bytes:
    return raw(method="GET", path=path).replace(b"Host: 127.0.0.1", b"Host: " + host)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("host", FOREIGN)
async def test_another_sites_name_is_rejected_everywhere(
    emulator: Emulator, host: bytes, path: str
) -> None:
    """A page can have its own name resolved to loopback; then the name is in `Host`."""
    status, headers, body = await exchange(emulator, with_host(host, path))

    assert (status, headers["content-type"]) == (403, "application/json")
    assert b'"code":"forbidden"' in body


@pytest.mark.parametrize("path", PATHS[:1] + PATHS[3:5])
async def test_a_url_in_the_request_line_wins_over_the_header(
    emulator: Emulator, path: str
) -> None:
    """As HTTP says."""
    sent = raw(method="GET", path=f"http://evil.com{path}")

    assert (await exchange(emulator, sent))[0] == 403


@pytest.mark.parametrize("host", [b"127.0.0.1", b"127.0.0.1:1", b"LocalHost:80", b"[::1]:9"])
async def test_names_of_loopback_are_accepted(emulator: Emulator, host: bytes) -> None:
    """With any port: a container or a tunnel may have another one."""
    assert (await exchange(emulator, with_host(host, "/api/v1/me")))[0] == 200


async def test_a_foreign_request_is_recorded_without_its_body_and_without_a_fault(
    emulator: Emulator,
) -> None:
    """So that its author finds out why it was rejected."""
    emulator.add_fault(Fault("*", faults.Status(500)))
    sent = raw(BODY, JSON_TYPE, f"Content-Length: {len(BODY)}").replace(b"127.0.0.1", b"evil.com")
    async with connected(emulator) as wire:
        await wire.send(sent)
        assert (await wire.answer())[0] == 403
        assert await wire.rest() == b""

    (record,) = emulator.requests
    assert (record.status, record.code, record.body) == (403, "forbidden", b"")
    assert [fault.seen for fault in emulator.faults] == [0]


@pytest.mark.parametrize(
    ("method", "path", "extra", "status"),
    [
        ("POST", "/_emulator/reset", "Origin: http://evil.com", 403),
        ("POST", "/_emulator/nothing", "X: y", 404),
        ("PUT", "/_emulator/reset", "X: y", 405),
        ("POST", "/", "X: y", 405),
        ("POST", "/api/v1/swaps", "Host: evil.com", 403),
    ],
)
async def test_a_wrong_control_request_is_rejected_before_its_body_is_read(
    emulator: Emulator, method: str, path: str, extra: str, status: int
) -> None:
    """The response comes while the body does not, and the connection closes."""
    head = f"{method} {path} HTTP/1.1\r\nContent-Length: 1000000\r\n{extra}\r\n"
    if not extra.startswith("Host"):
        head += "Host: 127.0.0.1\r\n"
    async with connected(emulator) as wire, asyncio.timeout(1):
        await wire.send(f"{head}\r\n".encode())
        received, headers, _ = await wire.answer()

    assert (received, headers["connection"]) == (status, "close")


async def test_bodies_of_requests_without_a_valid_key_are_not_kept(emulator: Emulator) -> None:
    """Whatever their path; those with a key are."""
    body = b"x" * 1000
    length = f"Content-Length: {len(body)}"
    for sent in (
        raw(body, length).replace(b"key_emulator", b"key_other"),
        raw(body, length, path="/elsewhere").replace(b"Bearer", b"Basic"),
        raw(body, length),
    ):
        await exchange(emulator, sent)

    assert [len(record.body) for record in emulator.requests] == [0, 0, 1000]


def test_the_log_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest requests make room; URLs and headers count."""
    monkeypatch.setattr(request_log, "KEPT_BYTES", 10_000)
    world = make_world()
    for _ in range(30):
        world.send("POST", "/api/v1/swaps", body=b"x" * 1000)
    kept = len(world.api.log)
    for _ in range(30):
        world.send("GET", f"/api/v1/{'x' * 1000}", headers={"X": "y" * 1000})

    assert kept == 9
    assert len(world.api.log) == 4
    assert all(entry[1].method == "GET" for entry in world.api.log)


def test_the_log_is_bounded_in_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """The latest are kept."""
    monkeypatch.setattr(request_log, "KEPT", 3)
    world = make_world()
    for number in range(5):
        world.get(f"/swaps/{number}")

    assert [entry[1].path[-1] for entry in world.api.log] == ["2", "3", "4"]


@pytest.mark.parametrize(
    ("match", "subject", "expected"),
    [
        ("GET /swaps/*", "GET /swaps/tsk_1", True),
        ("GET /swaps/*", "GET /swaps", False),
        ("*", "", True),
        ("a*b*c", "abc", True),
        ("a*b*c", "aXbXbXc", True),
        ("a*b*c", "acb", False),
        ("ab*ba", "aba", False),
        ("ab*ba", "abba", True),
        ("*a*a*", "a", False),
        ("a**b", "ab", True),
        ("a.b", "axb", False),
        ("webhook", "webhook swap.failed", True),
        ("webhook *.failed", "webhook swap.failed", True),
        ("* /x", "GET /x\n", False),
    ],
)
def test_a_star_stands_for_anything(match: str, subject: str, *, expected: bool) -> None:
    """Also for nothing; other characters stand for themselves."""
    assert fits(match, subject) is expected


@pytest.mark.parametrize(
    "match", ["GET /*a*a*a*a*a*a*a*b", "GET /" + "*a" * 2000 + "*b", "*" * 5000]
)
def test_many_stars_take_no_time(match: str) -> None:
    """Patterns that make a backtracking matcher take years."""
    start = time.perf_counter()
    fits(match, "GET /" + "a" * 8000)

    assert time.perf_counter() - start < 0.5


async def test_a_match_with_many_stars_keeps_the_emulator_alive(emulator: Emulator) -> None:
    """Every request is matched inside its lock."""
    emulator.add_fault(Fault("GET /*a*a*a*a*a*a*a*a*b", faults.Stall()))
    path = "/" + "a" * 5000
    async with asyncio.timeout(2):
        assert (await exchange(emulator, raw(method="GET", path=path)))[0] == 404
        assert (await exchange(emulator, creation()))[0] == 201
