"""`webhook listen`, `verify` and `trigger`: real processes, an app behind them, signals."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
import json
import logging
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aifaceswap import webhooks
from aifaceswap.cli import main
from aifaceswap.cli.webhook.deliveries import ADVICE
from aifaceswap.cli.webhook.listener import _drop_malformed
from aifaceswap.emulator import DEFAULT_API_KEY
from support.command_fixtures import Command, Serve
from support.commands import Outcome, Running, environment, on_terminal, running
from support.scripted import Received, ScriptedServer, answer, reset, stall

KEY = "key_test_123"
ENV = {"AIFACESWAP_API_KEY": KEY}
TIMEOUT_SECONDS = 20.0
# As no JSON library would write it: only the raw bytes are right.
BODY = b'{ "event":"swap.completed",\n  "id":"tsk_1", "metadata": {"note": "inside \\u00e9"} }'
# Of contract.md.
EXAMPLE = b'{"event":"swap.completed","id":"tsk_1"}'
EXAMPLE_HEADER = "t=1760000000,v1=cee582b09284b4f073d461a5cea4c948301100115120c7ab36c27f5d40ee6cfb"


@attrs.define(eq=False)
class Listening:
    """A `webhook listen` that is ready."""

    command: Running
    port: int

    def post(self, body: bytes = BODY, method: str = "POST", **headers: str) -> int:
        """Send a delivery, signed unless a signature is given; the status of the answer."""
        sent = {
            "Content-Type": "application/json",
            webhooks.SIGNATURE_HEADER: webhooks.sign(body, KEY),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_SECONDS)
        with contextlib.closing(connection):
            connection.request(method, "/any/path?x=1", body, sent)
            return connection.getresponse().status

    def lines(self) -> list[dict[str, Any]]:
        """The lines of JSON after the first."""
        found = [line for line in self.command.text.splitlines() if line.startswith("{")]
        return [json.loads(line) for line in found[1:]]


@contextmanager
def listening(
    *options: str, env: Mapping[str, str] = ENV, before: tuple[str, ...] = ()
) -> Iterator[Listening]:
    with running(*before, "webhook", "listen", *options, env=env) as command:
        ready = json.loads(command.read_until("\n"))
        assert ready["url"].startswith("http://127.0.0.1:")
        yield Listening(command, int(ready["url"].rpartition(":")[2].strip("/")))


def url_of(app: ScriptedServer, path: str = "/hooks/swap?a=%2F") -> str:
    return f"http://127.0.0.1:{app.port}{path}"


def unused_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


# --- listen ----------------------------------------------------------------------------------


def test_a_delivery_is_handed_on_as_it_came(serve: Serve) -> None:
    """The app gets the same bytes, signature and headers, and the sender learns that it did."""
    app = serve(answer(200))
    signature = webhooks.sign(BODY, KEY)
    with listening("--forward-to", url_of(app)) as listener:
        status = listener.post(
            x_aifaceswap_signature=signature, User_Agent="Swapper/1", X_Trace="7", TE="trailers"
        )
        listener.command.read_until('"forwarded"')
        assert status == 204
    (request,) = app.requests
    assert (request.method, request.path) == ("POST", "/hooks/swap?a=%2F")
    assert request.body == BODY
    assert request.headers["x-aifaceswap-signature"] == signature
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"] == "Swapper/1"
    assert request.headers["x-trace"] == "7"
    assert request.headers["host"] == f"127.0.0.1:{app.port}"
    assert "te" not in request.headers
    assert "authorization" not in request.headers


def test_a_delivery_is_one_line_of_json(serve: Serve) -> None:
    """With the swap as the API says it, the app's status and the time that it took."""
    app = serve(answer(202))
    with listening("--forward-to", url_of(app)) as listener:
        listener.post()
        listener.command.read_until('"forwarded"')
        listener.command.stop()
    (line,) = listener.lines()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", line["at"])
    assert line["event"] == "swap.completed"
    assert line["swap"]["id"] == "tsk_1"
    assert line["swap"]["metadata"] == {"note": "inside é"}
    assert line["forwarded"]["status"] == 202
    assert line["forwarded"]["error"] is None
    assert 0 < line["forwarded"]["seconds"] < TIMEOUT_SECONDS


def test_without_an_app_a_delivery_is_only_shown() -> None:
    """It is answered with 204, and there is nothing to say of an app."""
    with listening() as listener:
        assert listener.post() == 204
        listener.command.read_until('"forwarded"')
        listener.command.stop()
    assert [line["forwarded"] for line in listener.lines()] == [None]


def test_a_delivery_that_comes_twice_is_handed_on_twice(serve: Serve) -> None:
    """What to do about it is for the app to decide."""
    app = serve(answer(500), answer(200))
    with listening("--forward-to", url_of(app)) as listener:
        assert [listener.post(), listener.post(), listener.post()] == [502, 204, 204]
        listener.command.stop()
    assert [request.body for request in app.requests] == [BODY] * 3
    assert [line["forwarded"]["status"] for line in listener.lines()] == [500, 200, 200]


@pytest.mark.parametrize("status", [302, 400, 404, 503])
def test_an_app_that_refuses(serve: Serve, status: int) -> None:
    """Whatever is no 2xx is shown, not followed, and has the delivery come again."""
    app = serve(answer(status, headers={"Location": "/elsewhere"}))
    with listening("--forward-to", url_of(app)) as listener:
        assert listener.post() == 502
        listener.command.stop()
    assert [line["forwarded"]["status"] for line in listener.lines()] == [status]
    assert len(app.requests) == 1


def test_an_app_that_is_down() -> None:
    """The line says what is wrong, and the delivery comes again."""
    port = unused_port()
    with listening("--forward-to", f"http://127.0.0.1:{port}/") as listener:
        assert listener.post() == 502
        listener.command.stop()
    (line,) = listener.lines()
    assert line["forwarded"]["status"] is None
    assert line["forwarded"]["error"].startswith(f"cannot connect to 127.0.0.1:{port}: ")


def test_an_app_that_dies(serve: Serve) -> None:
    """A connection that breaks is shown; the delivery is sent to the app once."""
    app = serve(reset)
    with listening("--forward-to", url_of(app)) as listener:
        assert listener.post() == 502
        listener.command.stop()
    (line,) = listener.lines()
    assert "the connection was lost" in line["forwarded"]["error"]
    assert len(app.requests) == 1


OLD = webhooks.sign(BODY, KEY, timestamp=int(time.time()) - 400)
REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({"x_aifaceswap_signature": webhooks.sign(BODY, "other")}, 400, "signature_mismatch"),
    ({"x_aifaceswap_signature": "nonsense"}, 400, "header_malformed"),
    ({"x_aifaceswap_signature": OLD}, 400, "timestamp_outside_tolerance"),
    ({"body": b"[inside]"}, 400, "body_malformed"),
    ({"method": "PUT"}, 405, ""),
    ({"Content_Encoding": "gzip"}, 415, ""),
    ({"body": b"inside" + b" " * 1024 * 1024}, 413, ""),
]


@pytest.mark.parametrize(("what", "status", "reason"), REFUSED, ids=lambda value: str(value)[:30])
def test_what_is_not_believed(serve: Serve, what: dict[str, Any], status: int, reason: str) -> None:
    """It is answered as `WebhookApp` does, is one line without contents, and goes no further."""
    app = serve(answer(200))
    with listening("--forward-to", url_of(app)) as listener:
        assert listener.post(**what) == status
        seen = listener.command.read_until("rejected")
        listener.command.stop()
    line = listener.command.text.splitlines()[1]
    assert re.fullmatch(rf"\d\d:\d\d:\d\d  rejected  {status} .*{reason}", line), seen
    assert "inside" not in listener.command.text
    assert app.requests == []


@pytest.mark.parametrize(
    "garbage",
    [
        b"filth\r\n\r\n",
        b"\x16\x03\x01\x02\x00filth",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfilth\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nX: " + b"filth" * 20_000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nfilth",
    ],
    ids=["no request", "TLS", "chunks", "header", "cut"],
)
def test_garbage_is_taken_calmly(garbage: bytes) -> None:
    """What is no HTTP leaves no traceback and none of its contents; the next one is served."""
    with listening() as listener:
        with socket.create_connection(("127.0.0.1", listener.port)) as sender:
            sender.sendall(garbage)
            sender.shutdown(socket.SHUT_WR)
            while sender.recv(65_536):
                pass
        assert listener.post() == 204
        listener.command.stop()
    assert "Traceback" not in listener.command.text
    assert "filth" not in listener.command.text


def test_two_keys_during_a_rotation(tmp_path: Path) -> None:
    """A file of keys takes the place of the one in the environment."""
    keys = tmp_path / "keys"
    keys.write_text("key_old\n\n  key_new  \n")
    with listening("--key-file", str(keys)) as listener:
        signatures = [webhooks.sign(BODY, key) for key in ("key_old", "key_new", KEY)]
        statuses = [listener.post(x_aifaceswap_signature=signature) for signature in signatures]
    assert statuses == [204, 204, 400]


def test_listening_for_an_emulator() -> None:
    """With --emulator no key is needed: it is the emulator's."""
    with listening(before=("--emulator",), env={}) as listener:
        assert listener.post(x_aifaceswap_signature=webhooks.sign(BODY, DEFAULT_API_KEY)) == 204


@attrs.define(eq=False)
class Stalling:
    """An app that never answers, and says when it has begun not to."""

    begun: threading.Event = attrs.field(factory=threading.Event)

    async def __call__(self, request: Received, writer: asyncio.StreamWriter) -> None:
        self.begun.set()
        await stall(request, writer)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_it_listens_until_it_is_stopped(serve: Serve, number: signal.Signals, busy: bool) -> None:
    """Being stopped is its proper end, also while the app has not answered."""
    app = Stalling()
    with listening("--forward-to", url_of(serve(app))) as listener:
        sender = threading.Thread(target=lambda: post_in_vain(listener))
        if busy:
            sender.start()
            assert app.begun.wait(TIMEOUT_SECONDS)
        assert listener.command.stop(number) == 0
        if busy:
            sender.join(TIMEOUT_SECONDS)
    assert listener.command.text.splitlines()[1:] == ["Stopped."]


def post_in_vain(listener: Listening) -> None:
    with pytest.raises((OSError, http.client.HTTPException)):
        listener.post()


def test_the_port_is_in_use(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that says what to do."""
    monkeypatch.setenv("AIFACESWAP_API_KEY", KEY)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        outcome = command("webhook", "listen", "--port", str(port))
    assert (outcome.code, outcome.out) == (1, "")
    assert f"cannot listen on 127.0.0.1, port {port}: Address already in use" in outcome.err
    assert "--port 0" in outcome.next


def test_a_host_that_is_none(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that does not resolve is no traceback."""
    monkeypatch.setenv("AIFACESWAP_API_KEY", KEY)
    outcome = command("webhook", "listen", "--host", "nowhere.invalid")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith("Error: cannot listen on nowhere.invalid, port 0: ")


def test_a_circle(command: Command) -> None:
    """A delivery that would be handed on for ever is handed on not even once."""
    port = str(unused_port())
    options = ("--port", port, "--forward-to", f"http://localhost:{port}/hook")
    outcome = command("--emulator", "webhook", "listen", *options)
    assert (outcome.code, outcome.out) == (1, "")
    assert "is this command" in outcome.err


def test_an_app_at_the_root(serve: Serve) -> None:
    """A URL without a path is that of the root."""
    app = serve(answer(200))
    with listening("--forward-to", f"http://localhost:{app.port}") as listener:
        assert listener.post() == 204
    assert [request.path for request in app.requests] == ["/"]


def test_whoever_reads_has_gone() -> None:
    """A delivery that nobody can be shown is to come again, and the command ends quietly."""
    process = subprocess.Popen(
        [sys.executable, "-m", "aifaceswap", "webhook", "listen"],
        env=environment(**ENV),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            url = json.loads(process.stdout.readline())["url"]
            process.stdout.close()
            listener = Listening(Running(process, -1), int(url.rpartition(":")[2].strip("/")))
            assert listener.post() == 500
            assert process.wait(TIMEOUT_SECONDS) == 1
            assert process.stderr.read() == b""
        finally:
            process.kill()


def test_nobody_reads_of_two_deliveries_at_once(serve: Serve) -> None:
    """Both are to come again, and the command ends as quietly as after one."""
    both = threading.Barrier(2)

    async def hold(request: Received, writer: asyncio.StreamWriter) -> None:
        await asyncio.to_thread(both.wait, TIMEOUT_SECONDS)
        await answer(200)(request, writer)

    options = ("--forward-to", url_of(serve(hold)))
    process = subprocess.Popen(
        [sys.executable, "-m", "aifaceswap", "webhook", "listen", *options],
        env=environment(**ENV),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process, ThreadPoolExecutor() as senders:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            url = json.loads(process.stdout.readline())["url"]
            process.stdout.close()
            listener = Listening(Running(process, -1), int(url.rpartition(":")[2].strip("/")))
            sent = [senders.submit(listener.post) for _ in range(2)]
            assert [post.result(TIMEOUT_SECONDS) for post in sent] == [500, 500]
            assert process.wait(TIMEOUT_SECONDS) == 1
            assert process.stderr.read() == b""
        finally:
            process.kill()


def test_defects_are_not_taken_for_garbage() -> None:
    """What is wrong with the command itself is logged with its traceback."""
    defect = ZeroDivisionError()
    record = logging.makeLogRecord({"exc_info": (type(defect), defect, None)})
    assert _drop_malformed(record)


def test_what_people_see(serve: Serve) -> None:
    """One line a delivery, what came of it below; nothing of a signed URL; also where narrow."""
    app = serve(answer(204, b""), answer(500))
    done = b'{"event":"swap.completed","id":"tsk_1","result_url":"https://e.com/x.jpg?secret=1"}'
    failed = b'{"event":"swap.failed","id":"tsk_2","status":"failed","error":"No \\u001b[2J face"}'
    port = unused_port()
    options = ("--port", str(port), "--forward-to", url_of(app))
    with on_terminal("webhook", "listen", *options, env=ENV, columns=60) as command:
        command.read_until("Forwarding deliveries to")
        listener = Listening(command, port)
        assert [listener.post(done), listener.post(failed)] == [204, 502]
        command.read_until("face")
        assert command.stop() == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", command.text).replace("\r\n", "\n")
    assert f"Listening on http://127.0.0.1:{port}/ until Ctrl-C.\n" in text
    shown = r"\d\d:\d\d:\d\d  swap.completed  tsk_1  done  app: 204 in \d+ ms *\n"
    assert re.search(shown + r"  https://e.com/x.jpg\?…\n", text)
    shown = r"  swap.failed  tsk_2  failed  app: 500 in \d+\s+ms;\s+responded\s+with\s+502 *\n"
    assert re.search(shown + r"  No \\x1b\[2J face\n", text)
    assert "secret" not in text


def test_what_people_see_without_an_app() -> None:
    """The delivery and the swap; nothing of an app, and no result where there is none."""
    port = unused_port()
    with on_terminal("webhook", "listen", "--port", str(port), env=ENV) as command:
        command.read_until("until Ctrl-C.")
        assert Listening(command, port).post() == 204
        command.read_until("tsk_1")
        assert command.stop() == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", command.text).replace("\r\n", "\n")
    assert "Forwarding" not in text
    assert re.search(r"\d\d:\d\d:\d\d  swap.completed  tsk_1  done *\n(?!  )", text)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/hook",
        "http://127.0.0.1.example.com/",
        "http://127.0.0.1@example.com/",
        "http://example.com\\@127.0.0.1/",
        "ftp://127.0.0.1/",
        "127.0.0.1:8000",
        "http://127.0.0.1:0/",
        "http://127.0.0.1:70000/",
        "http://[::1/",
        "http://127.0.0.1/a b",
        "",
    ],
)
@pytest.mark.parametrize("words", [("listen", "--forward-to"), ("trigger", "--to")])
def test_deliveries_stay_on_this_machine(
    command: Command, words: tuple[str, str], url: str
) -> None:
    """Whatever is no URL of this machine is refused before anything begins."""
    outcome = command("--emulator", "webhook", *words, url)
    assert (outcome.code, outcome.out) == (2, "")
    assert "must be a URL on this machine, for example http://127.0.0.1:8000" in outcome.err
    assert outcome.next == f"See: aifaceswap webhook {words[0]} --help"


@pytest.mark.parametrize("words", [("listen",), ("trigger", "--to", "http://127.0.0.1:9/")])
def test_without_a_key(command: Command, words: tuple[str, ...]) -> None:
    """Exit code 4, and how to do without."""
    outcome = command("webhook", *words)
    assert (outcome.code, outcome.out) == (4, "")
    assert outcome.next.endswith(f"\n  aifaceswap --emulator webhook {' '.join(words)}")


# --- verify ----------------------------------------------------------------------------------


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The delivery of the contract's worked example; the key is set."""
    monkeypatch.setenv("AIFACESWAP_API_KEY", KEY)
    path = tmp_path / "body.json"
    path.write_bytes(EXAMPLE)
    return path


def verify(command: Command, body: Path, *options: str) -> Outcome:
    return command("webhook", "verify", str(body), "--header", EXAMPLE_HEADER, *options)


def test_a_delivery_that_is_believed(command: Command, example: Path) -> None:
    """Exit code 0, and what it says."""
    outcome = verify(command, example, "--now", "1760000010.5")
    assert (outcome.code, outcome.err) == (0, "")
    data = outcome.data
    assert data["valid"] is True
    assert (data["reason"], data["message"], data["age"]) == (None, None, 10.5)
    assert (data["event"], data["swap"]["id"]) == ("swap.completed", "tsk_1")


def test_an_old_delivery(command: Command, example: Path) -> None:
    """Exit code 1, its age, and what may be the reason."""
    outcome = verify(command, example)
    assert outcome.code == 1
    assert outcome.data["reason"] == "timestamp_outside_tolerance"
    assert outcome.data["age"] > 300
    assert "Check this machine's clock" in outcome.next
    assert verify(command, example, "--tolerance", "1e10").code == 0


def test_a_delivery_from_the_future(command: Command, example: Path) -> None:
    """A clock that is behind is seen, too."""
    data = verify(command, example, "--now", "1759999000").data
    assert (data["reason"], data["age"]) == ("timestamp_outside_tolerance", -1000)


def test_another_key(command: Command, example: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several keys can be tried at once; none of them is shown."""
    monkeypatch.setenv("AIFACESWAP_API_KEY", "another")
    outcome = verify(command, example, "--now", "1760000000")
    assert (outcome.code, outcome.data["reason"]) == (1, "signature_mismatch")
    assert "--key-file" in outcome.next
    assert "another" not in outcome.out + outcome.err
    keys = example.with_name("keys")
    keys.write_text(f"another\n{KEY}\n")
    outcome = verify(command, example, "--now", "1760000000", "--key-file", str(keys))
    assert outcome.code == 0


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_a_newline_too_many(command: Command, example: Path, newline: bytes) -> None:
    """What editors and shells do to a body is recognised."""
    example.write_bytes(EXAMPLE + newline)
    outcome = verify(command, example, "--now", "1760000000")
    assert (outcome.code, outcome.data["reason"]) == (1, "signature_mismatch")
    assert outcome.next.startswith("Remove the newline at the end")
    example.write_bytes(EXAMPLE + b" " + newline)
    assert "byte for byte" in verify(command, example, "--now", "1760000000").next


def test_a_signed_body_that_is_no_event(command: Command, example: Path) -> None:
    """The signature is right, and the reason is another one."""
    example.write_bytes(b"[]")
    header = webhooks.sign(b"[]", KEY)
    outcome = command("webhook", "verify", str(example), "--header", header)
    assert (outcome.code, outcome.data["reason"]) == (1, "body_malformed")


def test_the_body_from_stdin() -> None:
    """`-` reads the raw bytes."""
    words = ["webhook", "verify", "-", "--header", EXAMPLE_HEADER, "--now", "1760000000"]
    done = subprocess.run(
        [sys.executable, "-m", "aifaceswap", *words],
        env=environment(**ENV),
        input=EXAMPLE,
        capture_output=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_verdict_for_people(example: Path) -> None:
    """Names and values, and the next step."""
    words = ("webhook", "verify", str(example), "--header", EXAMPLE_HEADER)
    with on_terminal(*words, env=ENV) as command:
        assert command.end() == 1
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", command.text)
    assert re.search(r"Signature +invalid \(timestamp_outside_tolerance\)", text)
    assert re.search(r"Signed +2025-10-09 08:53 UTC \(\d+ days ago\)", text)
    with on_terminal(*words, "--now", "1760000007", env=ENV) as command:
        assert command.end() == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", command.text)
    assert re.search(r"Signature +valid", text)
    assert re.search(r"Signed +2025-10-09 08:53 UTC \(7 s ago\)", text)
    assert "Next" not in text
    with on_terminal(*words[:-1], "nonsense", env=ENV) as command:
        assert command.end() == 1
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", command.text)
    assert re.search(r"Signature +invalid \(header_malformed\)", text)
    assert "Signed" not in text


def test_every_reason_has_advice() -> None:
    """Whatever is wrong, there is something to do."""
    assert set(webhooks.WebhookVerificationReason) == set(ADVICE)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "contains no key"),
        (b"\n \n", "contains no key"),
        (b"good\nsec ret\n", "position 3 is not"),
    ],
)
def test_a_file_without_keys(command: Command, example: Path, content: bytes, said: str) -> None:
    """A file of keys that is none is named; what is in it is not shown."""
    keys = example.with_name("keys")
    keys.write_bytes(content)
    outcome = verify(command, example, "--key-file", str(keys))
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith(f"Error: --key-file: {keys}: ")
    assert said in outcome.err
    assert "ret" not in outcome.err.replace("secret", "").split("\n")[0]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ((), "'--header'"),
        (("--header", "x", "--tolerance", "0"), "'--tolerance'"),
        (("--header", "x", "--now", "inf"), "'--now'"),
        (("--header", "x", "--key-file", "/no/such/file"), "'--key-file'"),
    ],
)
def test_usage_of_verify(
    command: Command, example: Path, options: tuple[str, ...], named: str
) -> None:
    """A wrong argument is exit code 2, and leads to the help of this very command."""
    outcome = command("webhook", "verify", str(example), *options)
    assert (outcome.code, outcome.out) == (2, "")
    assert named in outcome.err.splitlines()[0]
    assert outcome.next == "See: aifaceswap webhook verify --help"


@given(
    body=st.binary(max_size=60),
    header=st.text(max_size=60)
    | st.from_regex(r"t=[0-9]{1,1000},v1=[0-9a-f]{64}", fullmatch=True)
    | st.from_regex(r"([tv][01]?=[0-9a-f ]*,){0,4}", fullmatch=True),
)
def test_whatever_is_asked_there_is_a_verdict(
    tmp_path_factory: pytest.TempPathFactory, body: bytes, header: str
) -> None:
    """Nothing but a verdict comes out, in one line of JSON."""
    path = tmp_path_factory.getbasetemp() / "fuzzed"
    path.write_bytes(body)
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        arguments = ("--emulator", "webhook", "verify", str(path), f"--header={header}")
        assert main(arguments) == 1
    (line,) = out.getvalue().splitlines()
    assert json.loads(line)["valid"] is False


# --- trigger ---------------------------------------------------------------------------------


def trigger(command: Command, app: ScriptedServer, *options: str) -> Outcome:
    return command("webhook", "trigger", "--to", url_of(app), *options)


@pytest.mark.parametrize(
    ("event", "status"), [("swap.completed", "done"), ("swap.failed", "failed")]
)
def test_a_delivery_like_the_services(
    command: Command, serve: Serve, monkeypatch: pytest.MonkeyPatch, event: str, status: str
) -> None:
    """One POST, signed with the key in the environment, of a swap that ended like this."""
    monkeypatch.setenv("AIFACESWAP_API_KEY", KEY)
    app = serve(answer(204, b""))
    outcome = trigger(command, app, "--event", event, "--metadata", '{"order": 7}')
    assert (outcome.code, outcome.err) == (0, "")
    (request,) = app.requests
    assert (request.method, request.path) == ("POST", "/hooks/swap?a=%2F")
    received = webhooks.parse(request.body, request.headers["x-aifaceswap-signature"], KEY)
    assert (received.event, received.swap.status) == (event, status)
    assert received.swap.metadata == {"order": 7}
    assert outcome.data == {
        "event": event,
        "swap_id": received.swap.id,
        "url": url_of(app),
        "status": 204,
        "error": None,
    }


def test_each_delivery_is_of_another_swap(command: Command, serve: Serve) -> None:
    """An app that handles each swap once handles each of them. The key is the emulator's."""
    app = serve(answer(200))
    for _ in range(2):
        outcome = command("--emulator", "webhook", "trigger", "--to", url_of(app))
        assert outcome.code == 0
    signatures = [request.headers["x-aifaceswap-signature"] for request in app.requests]
    first, second = (
        webhooks.parse(request.body, signature, DEFAULT_API_KEY)
        for request, signature in zip(app.requests, signatures, strict=True)
    )
    assert first.swap.id != second.swap.id


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (308, "Redirects are not followed"),
        (400, "verify with the key that signed, which is the one in AIFACESWAP_API_KEY"),
        (403, "verify with the key"),
        (404, "Correct --to"),
        (405, "does not accept POST"),
        (500, "Check the app's log"),
    ],
)
def test_an_app_that_does_not_take_it(
    command: Command, serve: Serve, monkeypatch: pytest.MonkeyPatch, status: int, advice: str
) -> None:
    """Exit code 1, its status, and what to look at; it is sent once."""
    monkeypatch.setenv("AIFACESWAP_API_KEY", KEY)
    app = serve(answer(status))
    outcome = trigger(command, app)
    assert (outcome.code, outcome.data["status"]) == (1, status)
    assert advice in outcome.next
    assert len(app.requests) == 1


def test_no_app_at_all(command: Command) -> None:
    """Exit code 1, and why there was no answer."""
    url = f"http://127.0.0.1:{unused_port()}/"
    outcome = command("--emulator", "webhook", "trigger", "--to", url)
    assert (outcome.code, outcome.data["status"]) == (1, None)
    assert "onnect" in outcome.data["error"]
    assert outcome.next == "Start the app, or correct --to."


@pytest.mark.parametrize(("status", "code"), [(204, 0), (404, 1)])
def test_an_answer_for_people(serve: Serve, status: int, code: int) -> None:
    """What was sent where, and the answer."""
    url = url_of(serve(answer(status, b"")))
    with on_terminal("--emulator", "webhook", "trigger", "--to", url) as command:
        assert command.end() == code
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", command.text)
    assert re.search(r"Event +swap.completed", text)
    assert url in text
    assert re.search(rf"Response +{status}", text)


def test_no_answer_for_people() -> None:
    """There was none, and why."""
    url = f"http://127.0.0.1:{unused_port()}/"
    with on_terminal("--emulator", "webhook", "trigger", "--to", url) as command:
        assert command.end() == 1
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", command.text)
    assert re.search(r"Response +none \(", text)


def test_from_trigger_through_listen_to_the_app(
    command: Command, serve: Serve, tmp_path: Path
) -> None:
    """The three of them agree about a delivery, without a key of the service."""
    app = serve(answer(200))
    with listening("--forward-to", url_of(app), before=("--emulator",), env={}) as listener:
        url = f"http://127.0.0.1:{listener.port}/hook"
        sent = command("--emulator", "webhook", "trigger", "--to", url)
        listener.command.stop()
    assert sent.data["status"] == 204
    (line,) = listener.lines()
    assert line["swap"]["id"] == sent.data["swap_id"]
    (request,) = app.requests
    body = tmp_path / "body"
    body.write_bytes(request.body)
    header = request.headers["x-aifaceswap-signature"]
    outcome = command("--emulator", "webhook", "verify", str(body), "--header", header)
    assert outcome.data["swap"]["id"] == sent.data["swap_id"]


def test_a_delivery_that_is_interrupted(serve: Serve) -> None:
    """Ctrl-C ends it like any other command."""
    app = Stalling()
    url = url_of(serve(app))
    with running("--emulator", "webhook", "trigger", "--to", url) as command:
        assert app.begun.wait(TIMEOUT_SECONDS)
        assert command.stop() == 130
    assert "Traceback" not in command.text
