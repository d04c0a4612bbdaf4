"""`doctor`: what it finds, and what it says to do about it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import ssl
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from email.utils import formatdate
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import attrs
import pytest
from anyio.from_thread import start_blocking_portal

from aifaceswap.cli.doctor.checks import check_versions, judge_certificate
from aifaceswap.emulator import Emulator
from support.certificates import CERTIFICATE, TLS_KEY
from support.command_fixtures import Command, Serve
from support.commands import Outcome, on_terminal, run_process, running
from support.scripted import Received, answer, raw, refusal, stall

KEY = "key_live_abcd9876"
TIMEOUT_SECONDS = 20.0
ME: dict[str, Any] = {
    "user_id": "usr_1",
    "email_verified": True,
    "subscription_tier": "free",
    "credits": {"permanent": 7, "monthly": 0, "subscription": 0, "total": 7},
    "rate_limit": {"limit": 60, "window_seconds": 60, "remaining": 59},
}
LOOKS = ["Versions", "Key", "Base URL", "Name", "TLS"]
LOOKS += ["Service", "Clock", "Credits", "Requests", "Proxies"]


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither settings nor proxies of the test run's own."""
    for name in ("AIFACESWAP_API_KEY", "AIFACESWAP_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def run_checks(command: Command, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Run `doctor` with a base URL, and a key unless told otherwise."""

    def run(base_url: str, key: str | None = KEY) -> Outcome:
        monkeypatch.setenv("AIFACESWAP_BASE_URL", base_url)
        if key is not None:
            monkeypatch.setenv("AIFACESWAP_API_KEY", key)
        return command("doctor")

    return run


def checks(outcome: Outcome) -> dict[str, Any]:
    found = {check["name"]: check for check in outcome.data["checks"]}
    assert list(found) == LOOKS
    assert outcome.data["ok"] is (outcome.code == 0)
    for check in found.values():
        needs_care = check["state"] in {"warning", "problem"}
        assert needs_care == bool(check["next"]), check
    return found


def states(outcome: Outcome) -> dict[str, str]:
    """The state of whatever is not in order."""
    found = checks(outcome).items()
    return {name: check["state"] for name, check in found if check["state"] != "ok"}


# --- in order --------------------------------------------------------------------------------


def test_all_is_well(command: Command, service: Emulator) -> None:
    """Exit code 0, one request, no credits."""
    outcome = command("doctor")
    assert (outcome.code, outcome.err) == (0, "")
    assert states(outcome) == {}
    assert [(request.method, request.path) for request in service.requests] == [
        ("GET", "/api/v1/me")
    ]
    assert service.balance == 1000


def test_a_private_emulator(command: Command, service: Emulator) -> None:
    """With --emulator the settings in the environment are not looked at."""
    service.revoke_key(service.api_key)
    outcome = command("--emulator", "doctor")
    assert outcome.code == 0
    assert states(outcome) == {}
    assert service.requests == ()
    assert "This was a private emulator" in outcome.err


def test_what_is_told_to_programs(command: Command, service: Emulator) -> None:
    """Versions, addresses, and what is left, as values."""
    found = checks(command("doctor"))
    assert found["Versions"]["data"].keys() >= {"aifaceswap", "python", "aiohttp", "click"}
    assert found["Name"]["data"] == {"addresses": ["127.0.0.1"]}
    assert found["Base URL"]["data"] == {"url": service.base_url}
    assert found["Credits"]["data"] == {"total": 1000}
    assert abs(found["Clock"]["data"]["skew_seconds"]) < 5


# --- key and base URL ------------------------------------------------------------------------


def test_no_key(run_checks: Command, service: Emulator) -> None:
    """It is a problem, the rest is looked at as far as that goes, and nothing is sent."""
    outcome = run_checks(service.base_url, key="")
    assert outcome.code == 1
    skipped = dict.fromkeys(["Service", "Clock", "Credits", "Requests"], "skipped")
    assert states(outcome) == {"Key": "problem", **skipped}
    assert "export AIFACESWAP_API_KEY=<your key>" in checks(outcome)["Key"]["next"]
    assert service.requests == ()


def test_a_malformed_key(run_checks: Command, service: Emulator) -> None:
    """A key that no header can carry is said to be one, and is not shown."""
    outcome = run_checks(service.base_url, key="se cret")
    assert states(outcome)["Key"] == "problem"
    assert "position 2" in checks(outcome)["Key"]["text"]
    assert "cret" not in (outcome.out + outcome.err).replace("secret", "")


@pytest.mark.parametrize("key", [KEY, f'"{KEY}"'])
def test_a_key_that_is_not_accepted(run_checks: Command, service: Emulator, key: str) -> None:
    """The service answers, so the clock is still looked at; no part of the key is shown."""
    outcome = run_checks(service.base_url, key=key)
    assert outcome.code == 1
    assert states(outcome) == {"Key": "problem", "Credits": "skipped", "Requests": "skipped"}
    found = checks(outcome)
    assert "invalid_api_key" in found["Key"]["text"]
    assert f"{len(key)} characters" in found["Key"]["text"]
    assert ("a quote" in found["Key"]["text"]) == key.startswith('"')
    assert "responded with 401" in found["Service"]["text"]
    assert "9876" not in outcome.out + outcome.err


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://example.com/api/v1", "must be https"),
        ("example.com/api/v1", "must be an absolute URL"),
        ("https://user:pass9@example.com/api/v1", "user name"),
        ("https://[::1/api/v1", "must be a valid URL"),
    ],
)
def test_a_base_url_that_is_none(run_checks: Command, url: str, said: str) -> None:
    """It is a problem by itself, and nothing is connected to."""
    outcome = run_checks(url)
    assert states(outcome)["Base URL"] == "problem"
    assert states(outcome)["Name"] == states(outcome)["TLS"] == "skipped"
    assert said in checks(outcome)["Base URL"]["text"]
    assert "pass9" not in outcome.out


def test_a_base_url_without_its_path(run_checks: Command, service: Emulator) -> None:
    """What is missing is put behind it, ready to be pasted."""
    outcome = run_checks(f"{service.origin}/")
    assert outcome.code == 1
    assert states(outcome)["Base URL"] == "warning"
    assert states(outcome)["Service"] == "problem"
    assert checks(outcome)["Base URL"]["next"] == f"export AIFACESWAP_BASE_URL={service.base_url}"


def test_a_name_that_does_not_resolve(run_checks: Command) -> None:
    """Name and service are problems; what needs an answer is skipped."""
    outcome = run_checks("https://nowhere.invalid/api/v1")
    assert outcome.code == 1
    skipped = ["Key", "TLS", "Clock", "Credits", "Requests"]
    problems = {"Name": "problem", "Service": "problem"}
    assert states(outcome) == {**dict.fromkeys(skipped, "skipped"), **problems}
    assert checks(outcome)["Name"]["text"].startswith("nowhere.invalid does not resolve: ")


# --- the service -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (refusal(503, "api_temporarily_disabled"), "503 api_temporarily_disabled"),
        (refusal(429, "rate_limited", {"Retry-After": "7"}), "429 rate_limited"),
        (answer(200, b"<html>a proxy</html>"), "not a valid Account"),
        (answer(302, b"", {"Location": "https://example.com/login"}), "a redirect to"),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"), "truncated"),
        (raw(b"SSH-2.0-OpenSSH\r\n"), "not HTTP"),
    ],
    ids=["off", "limited", "HTML", "redirect", "cut", "no HTTP"],
)
def test_a_service_that_does_not_answer_as_it_should(
    run_checks: Command, serve: Serve, step: Any, said: str
) -> None:
    """It is asked once, and what it answered is said."""
    server = serve(step)
    outcome = run_checks(server.base_url)
    assert outcome.code == 1
    assert states(outcome)["Service"] == "problem"
    assert states(outcome)["Key"] == "skipped"
    assert said in checks(outcome)["Service"]["text"]
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("skew", "state"),
    [
        *((0, "ok"), (20, "ok"), (-20, "ok"), (100, "warning"), (-100, "warning")),
        *((400, "problem"), (-400, "problem"), (10_000_000, "problem")),
    ],
)
def test_the_clock(run_checks: Command, serve: Serve, skew: float, state: str) -> None:
    """This machine's clock is compared with the service's: deliveries are refused by age."""
    date = formatdate(time.time() - skew, usegmt=True)
    outcome = run_checks(serve(answer(200, ME, {"Date": date})).base_url)
    clock = checks(outcome)["Clock"]
    assert clock["state"] == state
    assert clock["data"]["skew_seconds"] == pytest.approx(skew, abs=5)
    assert ("ahead of" in clock["text"]) == (skew > 30)
    assert ("behind" in clock["text"]) == (skew < -30)
    assert outcome.code == (state == "problem")


def test_the_clock_beside_a_refusal(run_checks: Command, serve: Serve) -> None:
    """An error has a date, too."""
    headers = {"Date": formatdate(time.time() + 3600, usegmt=True)}
    outcome = run_checks(serve(refusal(401, "invalid_api_key", headers)).base_url)
    assert states(outcome)["Clock"] == "problem"


@pytest.mark.parametrize("date", ["", "yesterday", "Thu, 01 Jan 99999 00:00:00 GMT"])
def test_no_date(run_checks: Command, serve: Serve, date: str) -> None:
    """A service that does not say what time it is leaves the clock unknown."""
    outcome = run_checks(serve(answer(200, ME, {"Date": date} if date else {})).base_url)
    assert (outcome.code, states(outcome)) == (0, {"Clock": "skipped"})


@pytest.mark.parametrize(
    ("left", "state"),
    [
        ({"credits": {**ME["credits"], "total": 0}}, {"Credits": "problem"}),
        ({"credits": {**ME["credits"], "total": -3}}, {"Credits": "problem"}),
        ({"credits": {**ME["credits"], "total": 0.5}}, {}),
        ({"rate_limit": {**ME["rate_limit"], "remaining": 0}}, {"Requests": "warning"}),
    ],
)
def test_what_is_left(
    run_checks: Command, serve: Serve, left: dict[str, Any], state: dict[str, str]
) -> None:
    """Without credits nothing can be created; requests come back by themselves."""
    date = {"Date": formatdate(usegmt=True)}
    outcome = run_checks(serve(answer(200, {**ME, **left}, date)).base_url)
    assert states(outcome) == state
    assert outcome.code == ("problem" in state.values())


# --- TLS -------------------------------------------------------------------------------------

# January 2020 alone.
EXPIRED = """\
-----BEGIN CERTIFICATE-----
MIIBoTCCAUegAwIBAgIBATAKBggqhkjOPQQDAjAtMRcwFQYDVQQKDA5UZXN0IEF1
dGhvcml0eTESMBAGA1UEAwwJbG9jYWxob3N0MB4XDTIwMDEwMTAwMDAwMFoXDTIw
MDIwMTAwMDAwMFowLTEXMBUGA1UECgwOVGVzdCBBdXRob3JpdHkxEjAQBgNVBAMM
CWxvY2FsaG9zdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABOtFrHY7XQEP7uG1
X+jA7x/s9cw4wEbetE1qLFukCni0QqAY1EOF1aMaLS45rxit/g9YC9Y4aFJ7WbIf
AGzvnnujWDBWMBQGA1UdEQQNMAuCCWxvY2FsaG9zdDAPBgNVHRMBAf8EBTADAQH/
MA4GA1UdDwEB/wQEAwIChDAdBgNVHQ4EFgQUTpBTBQRIQic+URbFSi77Y+sbRmYw
CgYIKoZIzj0EAwIDSAAwRQIgfJEkSk/EsnRULRwX3nohRJL/tVuQWzuDEMKRB3lB
ahkCIQCNvjHfH06U7XZaqRJnTRNWR+S8NVj3MrMc6CPyTsDPxA==
-----END CERTIFICATE-----
"""


async def _answer_tls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        await reader.readuntil(b"\r\n\r\n")
        body = json.dumps(ME).encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\nDate: %b\r\nContent-Length: %d\r\n\r\n%b"
            % (formatdate(usegmt=True).encode(), len(body), body)
        )
        await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def _serving_tls(certificate: Path) -> AsyncGenerator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = await asyncio.start_server(_answer_tls, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@pytest.fixture
def serve_tls(tmp_path: Path) -> Iterator[Callable[[str], int]]:
    """Start a service with a certificate; its port."""
    with start_blocking_portal() as portal, contextlib.ExitStack() as stack:

        def start(certificate: str) -> int:
            path = tmp_path / "server.pem"
            path.write_text(certificate + TLS_KEY)
            return stack.enter_context(portal.wrap_async_context_manager(_serving_tls(path)))

        yield start


ServeTLS = Callable[[str], int]


def examine_tls(tmp_path: Path, url: str, trusted: str = "") -> Outcome:
    """In a process of its own: what is trusted is read once."""
    authorities = tmp_path / "authorities.pem"
    authorities.write_text(trusted)
    env = {"AIFACESWAP_API_KEY": KEY, "AIFACESWAP_BASE_URL": url}
    return run_process("doctor", env={**env, "SSL_CERT_FILE": str(authorities)})


def test_a_good_certificate(serve_tls: ServeTLS, tmp_path: Path) -> None:
    """Its issuer and its end are told."""
    port = serve_tls(CERTIFICATE)
    outcome = examine_tls(tmp_path, f"https://localhost:{port}/api/v1", CERTIFICATE)
    assert (outcome.code, outcome.err, states(outcome)) == (0, "", {})
    tls = checks(outcome)["TLS"]
    assert tls["data"]["issuer"] == "Test Authority"
    assert tls["data"]["expires"] == "2126-10-30T09:05:56Z"
    assert tls["data"]["version"].startswith("TLSv1.")


BAD = {
    "expired": (EXPIRED, EXPIRED, "localhost", "set this machine's clock"),
    "self-signed": (CERTIFICATE, "", "localhost", "SSL_CERT_FILE"),
    "mismatch": (CERTIFICATE, CERTIFICATE, "127.0.0.1", "correct AIFACESWAP_BASE_URL"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_certificate(serve_tls: ServeTLS, tmp_path: Path, fault: str) -> None:
    """The reason is told, and what may be wrong."""
    certificate, trusted, host, advice = BAD[fault]
    port = serve_tls(certificate)
    outcome = examine_tls(tmp_path, f"https://{host}:{port}/api/v1", trusted)
    assert outcome.code == 1
    found = checks(outcome)
    assert found["TLS"]["state"] == found["Service"]["state"] == "problem"
    assert fault in found["TLS"]["text"]
    assert advice in found["TLS"]["next"]


def test_no_tls_at_all(run_checks: Command, service: Emulator) -> None:
    """What answers there does not speak TLS."""
    outcome = run_checks(service.base_url.replace("http:", "https:"))
    assert states(outcome)["TLS"] == "problem"
    assert "does not use TLS" in checks(outcome)["TLS"]["next"]


@pytest.mark.parametrize(("days", "state"), [(13, "warning"), (15, "ok")])
def test_a_certificate_that_ends_soon(days: float, state: str) -> None:
    """There is time to have it renewed."""
    until = formatdate(time.time() + days * 86_400, usegmt=True)
    not_after = re.sub(r"^\w+, (\d+) (\w+) (\d+) (\S+) GMT$", r"\2 \1 \4 \3 GMT", until)
    certificate = {"notAfter": not_after, "issuer": ((("commonName", "An Authority"),),)}
    check = judge_certificate("TLSv1.3", certificate)
    assert check.state == state
    assert "An Authority" in check.text
    assert ("renew the server's certificate" in (check.next or "")) == (state == "warning")


# --- this machine ----------------------------------------------------------------------------


def installed(folder: Path, name: str, version: str, *needed: str) -> None:
    """Make a distribution that hides the installed one."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {requirement}" for requirement in needed]
    (info / "METADATA").write_text("\n".join([*lines, ""]))


def test_a_dependency_that_is_too_old(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named, with what is needed."""
    installed(tmp_path, "aiohttp", "3.9.10")
    installed(tmp_path, "anyio", "99.0rc1")
    monkeypatch.syspath_prepend(tmp_path)
    outcome = command("--emulator", "doctor")
    assert (outcome.code, states(outcome)) == (1, {"Versions": "problem"})
    text = checks(outcome)["Versions"]["text"]
    floor = next(one for one in requires("aifaceswap") or () if one.startswith("aiohttp>="))
    assert text.startswith(f"aiohttp 3.9.10 is older than {floor.partition('>=')[2]} (")


def test_a_dependency_that_is_not_there(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named, with the extra that brings it: what works without is no problem."""
    needed = ("attrs>=23", "absent-one>=1.2; extra == 'otel'", "absent-two")
    installed(tmp_path, "aifaceswap", "0.1.0", *needed)
    monkeypatch.syspath_prepend(tmp_path)
    outcome = command("--emulator", "doctor")
    assert (outcome.code, states(outcome)) == (0, {})
    text = checks(outcome)["Versions"]["text"]
    assert text.endswith("; not installed: absent-one (extra otel), absent-two")


def test_a_checkout_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says nothing of what it needs, so there is nothing to compare."""
    monkeypatch.setattr(sys, "path", [])
    assert check_versions().data.keys() == {"aifaceswap", "python"}


def test_proxies_in_the_environment(
    run_checks: Command, service: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are not used for loopback; a proxy that is out of reach is named, no password shown."""
    monkeypatch.setenv("HTTPS_PROXY", "http://user:hidden@127.0.0.1:9")
    outcome = run_checks(service.base_url, service.api_key)
    assert (outcome.code, states(outcome)) == (0, {})
    assert checks(outcome)["Proxies"]["text"] == "HTTPS_PROXY: not used for this base URL"
    outcome = run_checks("https://nowhere.invalid/api/v1")
    found = states(outcome)
    assert (found["Proxies"], found["Name"], found["TLS"]) == ("warning", "skipped", "skipped")
    assert "NO_PROXY" in checks(outcome)["Proxies"]["next"]
    monkeypatch.setenv("NO_PROXY", "nowhere.invalid")
    assert states(run_checks("https://nowhere.invalid/api/v1"))["Name"] == "problem"
    assert "hidden" not in outcome.out


# --- on a terminal ---------------------------------------------------------------------------


def test_what_people_see() -> None:
    """A line a look, within the width of the terminal, and below what to do."""
    env = {"AIFACESWAP_BASE_URL": "http://example.com/api/v1"}
    with on_terminal("doctor", env=env, columns=60) as command:
        assert command.end() == 1
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", command.text).replace("\r\n", "\n")
    table = text[text.index("ok ") : text.index("Next, ")]
    assert all(len(line.rstrip()) <= 60 for line in table.splitlines())
    assert "problem  Key       AIFACESWAP_API_KEY is not set" in table
    assert "problem  Base URL  " in table
    assert "Next, Key: Set your key" in text
    assert "\n  aifaceswap --emulator doctor\n" in text
    assert text.endswith("2 problems, 0 warnings.\n")
    assert command.text.count("\x1b[?25l") == command.text.count("\x1b[?25h") == 1


@attrs.define(eq=False)
class Stalling:
    """A service that never answers, and says when it has begun not to."""

    begun: threading.Event = attrs.field(factory=threading.Event)

    async def __call__(self, request: Received, writer: asyncio.StreamWriter) -> None:
        self.begun.set()
        await stall(request, writer)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_while_it_waits(serve: Serve, number: signal.Signals, code: int) -> None:
    """It ends like any other command."""
    service = Stalling()
    env = {"AIFACESWAP_API_KEY": KEY, "AIFACESWAP_BASE_URL": serve(service).base_url}
    with running("doctor", env=env) as command:
        assert service.begun.wait(TIMEOUT_SECONDS)
        assert command.stop(number) == code
    assert "Traceback" not in command.text
