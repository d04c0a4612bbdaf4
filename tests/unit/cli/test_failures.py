"""Every failure: exit code, words for people, and what to do next."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from aifaceswap import errors
from aifaceswap.cli.context import CommandContext
from aifaceswap.cli.failures import ADVICE, find_advice, report
from aifaceswap.emulator import Emulator, Idempotency
from support.command_fixtures import Command
from support.commands import FOREVER
from support.samples import FACE, TARGET


def all_errors(kind: type[Exception] = errors.AIFaceSwapError) -> Iterator[type[Exception]]:
    yield kind
    for child in kind.__subclasses__():
        yield from all_errors(child)


def test_every_error_has_advice() -> None:
    """Each class of the tree has a row of its own; the command verifies no webhooks."""
    named = {kind for kind in all_errors() if kind.__module__ == errors.__name__}
    assert named - {errors.WebhookVerificationError} == set(ADVICE) - {OSError}


@pytest.mark.parametrize("resume", [None, "aifaceswap wait tsk_1"])
@pytest.mark.parametrize("kind", ADVICE)
def test_every_advice_can_be_said(
    kind: type[Exception], resume: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each row gives an error line first and the next step last, whatever is known."""
    session = CommandContext(["run", FACE, TARGET], command="run", resume=resume)
    assert report(kind("it broke"), session) == find_advice(kind(), session).exit_code
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Error: ")
    assert any(line.startswith("Next: ") for line in lines[1:])
    assert "{" not in "".join(lines)


MAGIC = [
    ("invalid.jpg", 1, "400 validation_error", "Correct what the message names"),
    ("unreachable.jpg", 1, "400 source_unreachable", "private browser window"),
    ("no-credits.jpg", 1, "402 insufficient_credits", "Add credits"),
    ("too-large.jpg", 1, "413 payload_too_large", "smaller images"),
    ("not-an-image.txt", 1, "415 unsupported_media_type", "SOURCE must be an image"),
    ("nsfw.jpg", 1, "422 nsfw_content_detected", "other images"),
    ("rate-limited-daily.jpg", 1, "429 rate_limited_daily", "Today's requests are used up"),
]


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize(("name", "code", "what", "advice"), MAGIC)
def test_the_service_refuses(
    command: Command, name: str, code: int, what: str, advice: str
) -> None:
    """A refusal is shown with its code, request id, the paid call's key, and advice."""
    key = f"order-{name}"
    outcome = command("run", f"https://example.com/{name}", TARGET, "--idempotency-key", key)
    assert (outcome.code, outcome.out) == (code, "")
    assert f"({what})" in outcome.err.splitlines()[0]
    assert "Request id: req_" in outcome.err
    assert f"Idempotency key: {key}\n" in outcome.err
    assert advice in outcome.next
    assert "Traceback" not in outcome.err


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize("name", ["fails.jpg", "fails-bare.jpg", "fails-silent.jpg"])
def test_the_swap_fails(command: Command, name: str) -> None:
    """A swap that ends without a picture is exit code 3; `get` merely shows it."""
    swap_id = command("create", FACE, f"https://example.com/{name}").data["id"]
    outcome = command("wait", swap_id)
    assert (outcome.code, outcome.out) == (3, "")
    assert outcome.err.startswith(f"Error: {swap_id} failed: ")
    assert outcome.next == "Try other images; each attempt is a new swap."
    assert command("download", swap_id).code == 3
    assert command("get", swap_id).data["status"] == "failed"


def test_the_swap_does_not_finish_in_time(command: Command) -> None:
    """A timeout is exit code 5: a script can tell it from a failure."""
    outcome = command("--emulator", "run", FACE, FOREVER, "--timeout", "0.05")
    assert (outcome.code, outcome.out) == (5, "")


@pytest.mark.usefixtures("service")
def test_the_swap_fails_in_run(command: Command) -> None:
    """`run` ends in 3 too, and says the key of what was paid."""
    target = "https://example.com/fails.jpg"
    outcome = command("run", FACE, target, "--idempotency-key", "order-7")
    assert (outcome.code, outcome.out) == (3, "")
    assert "Idempotency key: order-7\n" in outcome.err


def test_no_key(command: Command) -> None:
    """Without a key: exit code 4, how to set one, and how to do without."""
    outcome = command("run", FACE, TARGET)
    assert outcome.code == 4
    assert outcome.err.startswith("Error: AIFACESWAP_API_KEY is not set\n")
    assert "export AIFACESWAP_API_KEY=<your key>" in outcome.next
    assert outcome.next.endswith(f"aifaceswap --emulator run {FACE} {TARGET}")


def test_a_malformed_key(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that no header can carry is exit code 4, and is not shown."""
    monkeypatch.setenv("AIFACESWAP_API_KEY", "se cret")
    outcome = command("me")
    assert outcome.code == 4
    assert "cret" not in outcome.err.replace("secret", "")


def test_a_revoked_key(command: Command, service: Emulator) -> None:
    """A key that is no live one is exit code 4, and is not shown."""
    service.revoke_key(service.api_key)
    outcome = command("me")
    assert outcome.code == 4
    assert "invalid_api_key" in outcome.err
    assert service.api_key not in outcome.err
    assert outcome.next.startswith("Set a valid key")


def test_a_base_url_without_tls(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A base URL that the key must not go to is named as the variable it comes from."""
    monkeypatch.setenv("AIFACESWAP_API_KEY", "key_1")
    monkeypatch.setenv("AIFACESWAP_BASE_URL", "http://example.com/api/v1")
    outcome = command("me")
    assert outcome.code == 1
    assert outcome.err.startswith("Error: AIFACESWAP_BASE_URL must be https")
    assert "unset it" in outcome.next


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("run", "http://example.com/face.jpg", TARGET), "SOURCE must "),
        (("run", FACE, "https://localhost/x.jpg"), "TARGET must "),
        (("run", FACE, TARGET, "--webhook-url", "x"), "--webhook-url must "),
        (("run", FACE, TARGET, "--idempotency-key", "a b"), "--idempotency-key must "),
        (("run", FACE, TARGET, "--metadata", '{"a": NaN}'), "--metadata must "),
        (("run", FACE, TARGET, "--metadata", "[1]"), "'--metadata': "),
        (("run", FACE, TARGET, "--face-index", "-1"), "'--face-index': "),
        (("run", FACE, TARGET, "--type", "mp4"), "'--type': "),
        (("run", FACE, TARGET, "--timeout", "inf"), "'--timeout': "),
        (("run", FACE, TARGET, "--timeout", "0"), "'--timeout': "),
        (("--json", "run", FACE, TARGET, "--output", "-"), "--json and --output -"),
        (("run", FACE, TARGET, "--open"), "--open needs --output FILE"),
        (("download", "tsk_1", "--open", "--output", "-"), "--open needs --output FILE"),
        (("run", FACE, TARGET, "--output", "/"), "--output must "),
        (("run", FACE, TARGET, "--output", "/no/such/folder/x.jpg"), "--output must "),
        (("run", FACE), "'TARGET'"),
        (("get", "../me"), "ID must "),
        (("wait", ""), "ID must "),
        (("list", "--limit", "101"), "'--limit': "),
        (("list", "--cursor", ""), "--cursor must "),
        (("dance",), "'dance'"),
        (("--emulator",), "command"),
        (("emulator", "--port", "70000"), "'--port': "),
    ],
)
def test_usage(command: Command, service: Emulator, arguments: tuple[str, ...], named: str) -> None:
    """A wrong argument is exit code 2, named as the user typed it; nothing is sent."""
    outcome = command(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert named in outcome.err.splitlines()[0]
    assert "--help" in outcome.next
    assert service.requests == ()


@pytest.mark.parametrize("option", ["--api-key", "--key"])
def test_the_key_is_no_option(command: Command, option: str) -> None:
    """Whoever gives a key as an option learns of the variable; the key is not shown."""
    outcome = command("me", f"{option}=sk_live_1")
    assert outcome.code == 2
    assert "export AIFACESWAP_API_KEY=<your key>" in outcome.next
    assert "sk_live_1" not in outcome.err


def test_the_emulator_flag_after_the_command(command: Command) -> None:
    """--emulator in the wrong place is answered with the right command."""
    outcome = command("run", FACE, TARGET, "--emulator")
    assert outcome.code == 2
    assert outcome.next.endswith(f"\n  aifaceswap --emulator run {FACE} {TARGET}")


def test_the_key_of_a_swap_is_good_for_the_same_swap(command: Command, service: Emulator) -> None:
    """The command that goes on with a key gives the same swap, paid once."""
    arguments = ("run", FACE, TARGET, "--idempotency-key", "order-7")
    assert command(*arguments).data["id"] == command(*arguments).data["id"]
    assert service.balance == 999


def test_a_key_used_for_another_swap(command: Command, service: Emulator) -> None:
    """A key that belongs to another request is explained."""
    service.configure(idempotency=Idempotency(reuse_status=422))
    command("create", FACE, TARGET, "--idempotency-key", "order-7")
    outcome = command("create", TARGET, FACE, "--idempotency-key", "order-7")
    assert outcome.code == 1
    assert "An idempotency key belongs to one request" in outcome.next


def test_an_id_in_a_private_emulator(command: Command) -> None:
    """A private emulator knows no swap of before, and the advice says so."""
    outcome = command("--emulator", "get", "tsk_1")
    assert outcome.code == 1
    assert outcome.next.endswith("\n  aifaceswap emulator")


@pytest.mark.usefixtures("service")
def test_an_id_of_nobody(command: Command) -> None:
    """An unknown id is exit code 1 and leads to the list."""
    outcome = command("get", "tsk_1")
    assert outcome.code == 1
    assert outcome.next.endswith("\n  aifaceswap list --all")


def test_output_to_a_device(command: Command, service: Emulator, tmp_path: Path) -> None:
    """What is no ordinary file is not replaced by one."""
    os.mkfifo(tmp_path / "pipe")
    outcome = command("run", FACE, TARGET, "--output", str(tmp_path / "pipe"))
    assert outcome.code == 2
    assert "--output must be a regular file; got" in outcome.err
    assert service.requests == ()


def test_a_name_too_long(command: Command, service: Emulator, tmp_path: Path) -> None:
    """A file that the disk refuses is found out before anything is paid."""
    outcome = command("run", FACE, TARGET, "--output", str(tmp_path / ("x" * 300)))
    assert outcome.code == 2
    assert "at most 255 bytes" in outcome.err
    assert service.requests == ()


def test_text_from_elsewhere_cannot_steer_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Control characters in a message of the service are written out."""
    report(errors.ServerError("\x1b[2Jgone\nNext: pay", status=500), CommandContext([]))
    assert "\\x1b[2Jgone\\nNext: pay" in capsys.readouterr().err


def test_what_is_unexpected_is_raised(capsys: pytest.CaptureFixture[str]) -> None:
    """A defect keeps its traceback, but the paid swap is not forgotten."""
    with pytest.raises(ZeroDivisionError):
        report(ZeroDivisionError(), CommandContext([], resume="aifaceswap wait tsk_1"))
    assert "aifaceswap wait tsk_1" in capsys.readouterr().err


def test_what_is_unexpected_before_anything_is_paid(capsys: pytest.CaptureFixture[str]) -> None:
    """There is nothing to go on with, so nothing is said but the traceback."""
    with pytest.raises(ZeroDivisionError):
        report(ZeroDivisionError(), CommandContext([]))
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("service")
@pytest.mark.parametrize(
    ("key", "position"), [("Bearer key_1", 6), ('"key_1"', 0), ("'key_1'", 0), ("`key_1`", 0)]
)
def test_a_key_that_was_pasted_with_more(
    key: str, position: int, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is wrong is named by its position; no part of the key is shown."""
    monkeypatch.setenv("AIFACESWAP_API_KEY", key)
    outcome = command("me")
    assert outcome.code == 4
    assert f"position {position}" in outcome.err
    assert "use only the key itself, without 'Bearer ', quotes or line breaks" in outcome.err
    assert "key_1" not in outcome.err


@pytest.mark.parametrize("arguments", [("me",), ("get", "tsk_1"), ("run", FACE, TARGET)])
def test_a_base_url_without_its_end(
    arguments: tuple[str, ...],
    command: Command,
    service: Emulator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A 404 from elsewhere than the API is not blamed on an ID."""
    monkeypatch.setenv("AIFACESWAP_BASE_URL", service.origin)
    outcome = command(*arguments)
    assert outcome.code == 1
    assert outcome.err.startswith(f"Error: Not found: {service.origin} (404)\n")
    assert outcome.next == (
        "AIFACESWAP_BASE_URL probably needs /api/v1 at the end:\n"
        f"  export AIFACESWAP_BASE_URL={service.base_url}"
    )


def test_a_private_emulator_that_is_too_slow(command: Command) -> None:
    """The same command with a larger timeout is what to try."""
    outcome = command("--emulator", "run", FACE, FOREVER, "--timeout", "0.05")
    assert outcome.code == 5
    assert outcome.next.endswith(f"\n  aifaceswap --emulator run --timeout 300 {FACE} {FOREVER}")


@pytest.mark.parametrize("way", ["option", "environment"])
def test_a_proxy_that_is_out_of_reach(
    way: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--proxy` and HTTPS_PROXY are used, and their password is not shown."""
    monkeypatch.setenv("AIFACESWAP_API_KEY", "key_1")
    proxy = "http://user:hidden@127.0.0.1:9"
    options = ("--proxy", proxy) if way == "option" else ()
    if way == "environment":
        monkeypatch.setenv("HTTPS_PROXY", proxy)
    outcome = command(*options, "me")
    assert outcome.code == 1
    assert "127.0.0.1:9" in outcome.err
    assert "hidden" not in outcome.err


def test_a_proxy_that_is_none(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The option is named."""
    monkeypatch.setenv("AIFACESWAP_API_KEY", "key_1")
    outcome = command("--proxy", "nonsense", "me")
    assert outcome.code == 1
    assert outcome.err.startswith("Error: --proxy must be ")
