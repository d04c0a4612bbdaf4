"""`--redis`: limits shared with other processes, and what is wrong with a server."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

import aifaceswap
from aifaceswap.cli.context import command_line
from aifaceswap.emulator import Emulator
from support.command_fixtures import Command
from support.commands import FOREVER, INSTANT, run_process
from support.redis_fixtures import (
    own_redis_server,
    redis_server,
    serving_redis,
    shared_redis_server,
)
from support.redis_server import RedisServer
from support.samples import FACE
from unit.cli.test_loading import WITHOUT
from unit.cli.test_webhook import KEY, listening

__all__ = ["own_redis_server", "redis_server", "shared_redis_server"]

CHECKS = ["Redis", "Redis clock", "Redis memory", "Redis ACL"]


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the test run's own."""
    monkeypatch.delenv("AIFACESWAP_REDIS", raising=False)


# --- commands that share limits --------------------------------------------------------------


def test_a_run_takes_its_permits_from_redis(
    command: Command, service: Emulator, redis_server: RedisServer
) -> None:
    """Other processes see its requests, and what it leaves there expires."""
    outcome = command("run", FACE, INSTANT, "--redis", redis_server.url)

    assert outcome.data["status"] == "done", outcome.err
    assert len(service.swaps) == 1
    assert redis_server.command("DBSIZE") != ":0"


@pytest.mark.usefixtures("service")
def test_the_server_can_come_from_the_environment(
    command: Command, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a password is not on the command line; a private emulator does not need the server."""
    monkeypatch.setenv("AIFACESWAP_REDIS", redis_server.url)
    private = ("--emulator", "doctor")

    assert '"Redis"' in command("doctor").out
    assert '"Redis"' not in command(*private).out
    assert '"Redis"' in command(*private, "--redis", redis_server.url).out


def test_a_bulk_run_shares_its_limits(
    command: Command, service: Emulator, redis_server: RedisServer, tmp_path: Path
) -> None:
    """Each row is one swap, and each request takes its permit from Redis."""
    rows = tmp_path / "rows.csv"
    rows.write_text(f"source_url,target_url\n{FACE},{INSTANT}\n{FACE},{INSTANT}\n")
    outcome = command("bulk", str(rows), "--redis", redis_server.url)

    assert outcome.code == 0, outcome.err
    assert len(service.swaps) == 2
    assert redis_server.command("DBSIZE") != ":0"


async def test_a_delivery_at_a_listener_ends_waits_elsewhere(redis_server: RedisServer) -> None:
    """The swap never ends by itself: the delivery ends the wait of another process."""
    from aifaceswap.redis import RedisCoordinator

    async with (
        Emulator(api_key=KEY) as service,
        RedisCoordinator(redis_server.url) as shared,
        aifaceswap.AsyncClient(KEY, base_url=service.base_url, coordinator=shared) as client,
    ):
        swap = await client.swaps.create(source_url=FOREVER, target_url=FACE)
        waiting = asyncio.create_task(client.swaps.wait(swap, timeout=50))
        fields = {"event": "swap.completed", "id": swap.id, "status": "done", "result_url": FACE}
        env = {"AIFACESWAP_API_KEY": KEY, "AIFACESWAP_BASE_URL": service.base_url}

        def deliver() -> int:
            with listening("--redis", redis_server.url, env=env) as listener:
                status = listener.post(json.dumps(fields).encode())
                listener.command.stop()
                return status

        assert await asyncio.to_thread(deliver) == 204
        assert (await waiting).status == "done"


# --- servers that cannot be used -------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis://u:secret@127.0.0.1:1/0", "127.0.0.1:1/0 cannot be used: no connection: "),
        ("redis://nobody.invalid/", "nobody.invalid/ cannot be used: no connection: "),
        ("unix:///nowhere.sock?password=secret", "/nowhere.sock cannot be used: no connection: No"),
        ("127.0.0.1:6379", "--redis must be a URL like redis://127.0.0.1:6379/0"),
        ("redis://u:secret@127.0.0.1:port/0", "--redis must be a URL like redis://"),
        ("http://u:secret@127.0.0.1/", "--redis must be a URL like redis://"),
    ],
)
def test_a_server_that_is_not_there(
    url: str, message: str, command: Command, service: Emulator
) -> None:
    """One line says what is wrong, without the password; nothing is sent to the service."""
    pytest.importorskip("redis")
    outcome = command("run", FACE, INSTANT, "--redis", url)

    assert outcome.code == 1
    assert outcome.err.startswith("Error: ")
    assert message in outcome.err
    assert outcome.next == "Start the server, or correct --redis (AIFACESWAP_REDIS)."
    assert "secret" not in outcome.err
    assert service.requests == ()


def test_a_bulk_run_whose_server_is_not_there(
    command: Command, service: Emulator, tmp_path: Path
) -> None:
    """It does not begin, and the command that is shown has no password."""
    pytest.importorskip("redis")
    rows = tmp_path / "rows.csv"
    rows.write_text(f"source_url,target_url\n{FACE},{INSTANT}\n")
    outcome = command("bulk", str(rows), "--redis", "redis://u:secret@127.0.0.1:1/0")

    assert outcome.code == 1
    assert "127.0.0.1:1/0 cannot be used: no connection: " in outcome.err
    assert "secret" not in outcome.err
    assert service.requests == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--requirepass", "x"), "it rejected the user name or the password"),
        (("--replicaof", "127.0.0.1", "1"), "it is a read-only replica"),
        (("--databases", "1"), "it has no database with this number"),
        (
            ("--user", "default", "on", "nopass", "~*", "+@all", "-zadd", "-evalsha"),
            "denies its user what is needed: ZADD, EVALSHA",
        ),
        (("--user", "default", "on", "nopass", "~*", "+@all", "-eval"), "is needed: EVAL"),
        (
            ("--user", "default", "on", "nopass", "~other:*", "+@all"),
            "is needed: keys aifaceswap:*",
        ),
    ],
)
def test_a_server_that_cannot_be_used(
    options: tuple[str, ...], message: str, command: Command, service: Emulator
) -> None:
    """In our words, before anything is sent to the service."""
    with serving_redis(*options) as server:
        database = "?db=7" if "--databases" in options else ""
        outcome = command("run", FACE, INSTANT, "--redis", server.url + database)

    assert outcome.code == 1
    assert message in outcome.err
    assert service.requests == ()


def test_a_user_that_may_do_nothing(command: Command, own_redis_server: RedisServer) -> None:
    """It cannot even be asked for the time."""
    own_redis_server.command("ACL SETUSER limited on >secret ~* -@all")
    url = own_redis_server.url.replace("unix://", "unix://limited:secret@")
    outcome = command("--emulator", "run", FACE, INSTANT, "--redis", url)

    assert outcome.code == 1
    assert "its user must not run PING and TIME" in outcome.err


def test_without_the_extra() -> None:
    """Without redis-py the command says how to get it."""
    env = {"AIFACESWAP_API_KEY": "key_test_123"}
    outcome = run_process(
        *("redis", "run", FACE, INSTANT, "--redis", "redis://127.0.0.1"), env=env, code=WITHOUT
    )
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err == (
        "Error: --redis needs the package redis\nNext: Install it: pip install redis\n"
    )


def test_a_password_is_not_repeated() -> None:
    """Neither where it usually is, nor as a parameter."""
    shown = command_line("run", "--redis", "redis://u:secret@h/0?password=secret&x=1")
    assert shown == "aifaceswap run --redis 'redis://…@h/0?password=…&x=1'"


def test_every_command_of_the_package_is_checked() -> None:
    """What a script of the package calls is among what a user must be allowed to do."""
    from aifaceswap.redis import _probe

    folder = Path(aifaceswap.__file__).parent / "redis"
    text = "\n".join(path.read_text("utf-8") for path in folder.glob("*.py"))
    called = set(re.findall(r"redis\.p?call\('([A-Z]+)'", text))
    checked = {words.split()[0] for words in re.split(r"[|\n]", _probe._COMMANDS)}

    assert called
    assert called <= checked


# --- doctor ----------------------------------------------------------------------------------


def states(command: Command, url: str) -> dict[str, tuple[str, str]]:
    outcome = command("doctor", "--redis", url)
    found = {check["name"]: check for check in outcome.data["checks"]}
    assert list(found)[-len(CHECKS) :] == CHECKS
    assert outcome.code == any(check["state"] == "problem" for check in found.values())
    for name in CHECKS:
        needs_care = found[name]["state"] in {"warning", "problem"}
        assert needs_care == bool(found[name]["next"])
    return {name: (found[name]["state"], found[name]["text"]) for name in CHECKS}


@pytest.mark.usefixtures("service")
def test_doctor_finds_a_server_in_order(command: Command, redis_server: RedisServer) -> None:
    """Reachable, with the right time, without eviction, and nothing is denied."""
    found = states(command, redis_server.url)

    assert {state for state, _ in found.values()} == {"ok"}
    assert re.search(r"redis\.sock responded in [\d.]+ ms; version \d", found["Redis"][1])
    assert found["Redis memory"] == ("ok", "eviction policy noeviction")
    assert redis_server.command("DBSIZE") == ":0"


@pytest.mark.usefixtures("service")
def test_doctor_without_redis(command: Command) -> None:
    """Whoever does not use it sees nothing of it."""
    names = [check["name"] for check in command("doctor").data["checks"]]
    assert not set(CHECKS) & set(names)


@pytest.mark.usefixtures("service")
def test_doctor_warns_of_eviction(command: Command) -> None:
    """A server that forgets keys forgets limits."""
    with serving_redis("--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru") as server:
        state, text = states(command, server.url)["Redis memory"]

    assert state == "warning"
    assert text.startswith("eviction policy allkeys-lru; ")


@pytest.mark.usefixtures("service")
def test_doctor_names_denied_commands(command: Command) -> None:
    """And what INFO would show is skipped."""
    user = ("--user", "default", "on", "nopass", "~*", "+@all", "-xadd", "-info")
    with serving_redis(*user) as server:
        found = states(command, server.url)

    assert found["Redis ACL"][0] == "problem"
    assert found["Redis ACL"][1].endswith("denies its user what is needed: XADD")
    assert found["Redis memory"] == ("skipped", "INFO is not permitted")
    assert found["Redis"][1].endswith("version unknown")


@pytest.mark.usefixtures("service")
def test_doctor_finds_no_server(command: Command) -> None:
    """A problem, and the other checks are skipped."""
    pytest.importorskip("redis")
    found = states(command, "redis://u:secret@127.0.0.1:1/0")

    assert found["Redis"][0] == "problem"
    assert "secret" not in found["Redis"][1]
    assert [found[name][0] for name in CHECKS[1:]] == ["skipped"] * 3


@pytest.mark.parametrize(
    ("skew", "text"), [(45.0, "45 s ahead of this machine's"), (-125.0, "2 min 5 s behind this")]
)
def test_doctor_compares_clocks(skew: float, text: str) -> None:
    """Half a minute is a warning: the daily limit follows the server's clock."""
    pytest.importorskip("redis")
    from aifaceswap.cli.doctor.redis import judge
    from aifaceswap.redis._probe import ServerReport

    report = ServerReport("7.0.1", 0.001, skew, "noeviction", 0, ())
    check = next(check for check in judge("redis://h", report) if check.name == "Redis clock")

    assert check.state == "warning"
    assert check.text.startswith(text)


def test_doctor_warns_of_an_old_server() -> None:
    """Older than what the scripts are tested with."""
    pytest.importorskip("redis")
    from aifaceswap.cli.doctor.redis import judge
    from aifaceswap.redis._probe import ServerReport

    server, *_ = judge("redis://h", ServerReport("6.0.16", 0.001, 0.0, "noeviction", 0, ()))

    assert (server.state, server.next) == ("warning", "use Redis 6.2 or newer, or Valkey")
