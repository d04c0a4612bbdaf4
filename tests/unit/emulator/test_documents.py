"""Fault scripts in TOML: what they say, and what is said of bad ones."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aifaceswap.emulator import Fault, faults
from aifaceswap.emulator._control.views import describe_fault
from aifaceswap.emulator._documents import read_toml, structure

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = """\
# Everything that a fault can say.
[[fault]]
match = "POST /swaps"
nth = 3
do = { action = "status", status = 503, retry_after = 2 }

[[fault]]
match = "GET /swaps/*"
rate = 0.25
times = 4
do = "reset"

[[fault]]
match = "*"
rate = 1
[fault.do]
action = "headers"
set = { x-request-id = "" }
remove = ["Date"]

[[fault]]
match = "webhook swap.completed"
do = { action = "late", seconds = 90 }
"""


def test_a_script_is_read(tmp_path: Path) -> None:
    """Tables in order, an action by its name alone or with its fields."""
    path = tmp_path / "faults.toml"
    path.write_text(SCRIPT)

    assert faults.load(path) == (
        Fault("POST /swaps", faults.Status(503, retry_after=2), nth=3),
        Fault("GET /swaps/*", faults.Reset(), rate=0.25, times=4),
        Fault("*", faults.Headers(set={"x-request-id": ""}, remove=["Date"]), rate=1),
        Fault("webhook swap.completed", faults.Late(90)),
    )


def test_an_empty_script_has_no_faults(tmp_path: Path) -> None:
    """As an empty list has none."""
    path = tmp_path / "faults.toml"
    path.write_text("# nothing\n")

    assert faults.load(str(path)) == ()


def test_a_script_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    """The one that everybody knows."""
    with pytest.raises(FileNotFoundError):
        faults.load(tmp_path / "nothing.toml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("nth = 3", "nth = 0", "fault[0].nth: must be at least 1; got 0"),
        ("nth = 3", 'nth = "3"', 'fault[0].nth: must be an integer; got "3"'),
        ("nth = 3", "nht = 3", "fault[0].nht: is not known here; known are match, do, nth"),
        ("nth = 3", "nth = 3\nnth = 4", "Cannot overwrite a value (at line 5, column "),
        ("nth = 3", "nth =", "Invalid value (at line 4, column "),
        ("503", "99", "fault[0].do.status: must be from 400 to 599; got 99"),
        ("503", "true", "fault[0].do.status: must be an integer; got true"),
        ("status = 503", "state = 503", "fault[0].do.state: is not known here; known are"),
        (", status = 503", "", "fault[0].do.status: is missing"),
        ('"status", ', '"stat", ', "fault[0].do.action: must be one of status, cloudflare_page"),
        ('action = "status", ', "", "fault[0].do: action must be one of status, cloudflare_page"),
        (
            "retry_after = 2",
            "retry_after = []",
            "fault[0].do.retry_after: must be",
        ),
        (
            "retry_after = 2",
            "retry_after = -1",
            "fault[0].do.retry_after: must be at",
        ),
        ("rate = 0.25", "rate = 25", "fault[1].rate: must be at least 0 and at most 1"),
        ("rate = 0.25", "rate = nan", "fault[1].rate: must be a number; got NaN"),
        ('do = "reset"', "do = 7", "fault[1].do: must be an object with an action"),
        ('do = "reset"', 'do = "rest"', "fault[1].do: action must be one of status"),
        ('do = "reset"', 'do = "drop"', "fault[1].do: must be for a request, as match="),
        ('do = "reset"', "", "fault[1].do: is missing"),
        ("GET /swaps/*", "swaps", "fault[1].match: must be such as 'POST /swaps'"),
        ('"Date"', '"Da te"', "fault[2].do.remove: must name headers such as"),
        ('["Date"]', '"Date"', 'fault[2].do.remove: must be a list; got "Date"'),
        ('["Date"]', "[7]", "fault[2].do.remove[0]: must be a string; got 7"),
        ('x-request-id = ""', "a = 7", "fault[2].do.set.a: must be a string; got 7"),
        ("{ x-request-id", '"a" #', 'fault[2].do.set: must be an object; got "a"'),
        (
            "seconds = 90",
            "seconds = 1e99",
            "fault[3].do.seconds: must be a number; got",
        ),
        ("# Everything that a fault can say.", "faults = 7", "faults: is not known here"),
        ("# Everything that a fault can say.", "fault = 7", "(at line 2, column "),
        ("late", "l\x00te", "Illegal character '\\x00' (at line 23, column "),
    ],
)
def test_the_error_of_a_bad_script_names_the_field(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    """The error begins with the file, and says what would be right."""
    path = tmp_path / "faults.toml"
    assert SCRIPT.count(old) >= 1
    path.write_text(SCRIPT.replace(old, new, 1))
    with pytest.raises(ValueError, match=r"^") as caught:
        faults.load(path)

    assert str(caught.value).startswith(f"{path}")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\n\n\xff", "f: must be UTF-8"),
        (b"x =", "f: Invalid value (at end of document)"),
        (b"x = " + b"[" * 100_000, "f: is nested too deep"),
        (b"x = " + b"1" * 9_999, "f: Exceeds the limit"),
        (b"fault = 7", "f: fault: must be a list; got 7"),
        (b"fault = [7]", "f: fault[0]: must be an object; got 7"),
        (b'[[fault]]\nmatch = """\n*"""\nnth = 2', "f: fault[0].do: is missing"),
    ],
)
def test_a_file_that_is_not_a_script(tmp_path: Path, text: bytes, message: str) -> None:
    """Whatever the bytes are."""
    path = tmp_path / "f"
    path.write_bytes(text)
    with pytest.raises(ValueError, match=r"^") as caught:
        faults.load(path)

    assert str(caught.value).removeprefix(f"{tmp_path}/").startswith(message)


@given(st.text(max_size=200) | st.sampled_from(SCRIPT.split("\n")).map(lambda line: line * 2))
def test_nothing_but_a_value_error_comes_of_text(text: str) -> None:
    """Put anywhere, any text gives faults or an error that names the file."""
    for source in (text, SCRIPT.replace("nth = 3", text)):
        said = "f"
        try:
            read_toml(source.encode(errors="surrogatepass"), faults.Script, "f")
        except ValueError as error:
            said = str(error)
        assert said.startswith("f")


ACTIONS = st.one_of(
    st.builds(faults.Status, st.integers(400, 599), retry_after=st.none() | st.floats(0, 9)),
    st.builds(faults.Latency, st.floats(0, 1e6)),
    st.builds(faults.Stall, st.sampled_from(["nothing", "half"])),
    st.builds(faults.Reset, commit=st.booleans()),
    st.builds(faults.Truncate, st.floats(0, 0.99)),
    st.builds(faults.Body, st.text(alphabet="aä{\n"), status=st.none() | st.integers(200, 599)),
    st.builds(faults.Oversized, st.integers(1, 10**9)),
    st.builds(faults.Headers, set=st.dictionaries(st.sampled_from("abc"), st.sampled_from("xyz"))),
    st.builds(faults.ClockSkew, st.floats(-1e6, 1e6)),
    st.builds(faults.Close),
)


@given(st.builds(Fault, st.just("*"), ACTIONS, nth=st.integers(1, 99), rate=st.floats(0, 1)))
def test_a_fault_as_it_is_shown_can_be_read_again(fault: Fault) -> None:
    """What `/_emulator/faults` shows is what it takes."""
    assert structure(json.loads(json.dumps(describe_fault(fault))), Fault) == fault


def test_every_action_can_be_shown() -> None:
    """By its name and with all its fields."""
    for name, action in faults.ACTIONS.items():
        required = {"status": 500, "seconds": 1.0}
        fields = {
            field.name: required[field.name]
            for field in attrs.fields(action)
            if field.default is attrs.NOTHING
        }
        match = "webhook" if action in faults.WebhookAction.__args__ else "*"
        shown = describe_fault(Fault(match, action(**fields)))
        assert shown["do"]["action"] == name
