"""What may be sent and what is refused before a socket is opened."""

from __future__ import annotations

import copy
import ipaddress
import math
import pickle
import re
import string
import traceback
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aifaceswap import _validation, errors
from aifaceswap._validation import Proxy, Secret
from aifaceswap.errors import ConfigurationError, InvalidRequestError

PROPERTY = settings(max_examples=150, deadline=None)

NO_STRINGS: list[object] = [None, 1, 1.5, True, b"https://example.com/", ["x"], {"x": 1}, ...]
SURROGATE = "\ud800"


def kind_of(value: object) -> str:
    """A short name for a value, or for a check, in the name of a test."""
    if isinstance(value, str):
        return ascii(value)
    name: str = getattr(value, "__name__", "")
    # Without the address: the name of a test is the same in every process.
    return name or errors.short_repr(value).partition(" at 0x")[0][:40]


# --- public URLs ---------------------------------------------------------------------------

PUBLIC = [
    "https://example.com",
    "https://example.com/",
    "https://example.com/a/b.jpg",
    "https://example.com/a.jpg?width=100&sig=a%2Fb==#top",
    "https://example.com?x=1",
    "https://example.com#x",
    "https://example.com:443/a.jpg",
    "https://example.com:8443/a.jpg",
    "https://example.com:65535/",
    "https://example.com./a.jpg",
    "https://a.b.c.d.example.co.uk/",
    "https://cdn_1.example.com/",
    "https://a--b.example.com/",
    "HTTPS://Example.COM/A.JPG",
    "https://bücher.example/a.jpg",
    "https://例え.テスト/画像.jpg",
    "https://xn--bcher-kva.example/a.jpg",
    "https://example.xn--p1ai/",
    "https://example.com/bücher.jpg",
    "https://example.com/a@b:c/",
    "https://example.com/?u=http://localhost/",
    "https://example.com/#@127.0.0.1",
    "https://8.8.8.8/a.jpg",
    "https://8.8.8.8:8443/a.jpg",
    "https://[2606:4700:4700::1111]/a.jpg",
    "https://[2606:4700:4700::1111]:8443/a.jpg",
    "https://[::ffff:8.8.8.8]/a.jpg",
    "https://localhost.example.com/",
    "https://local.example.com/",
    "https://mylocalhost.com/",
    "https://example.localhost-cdn/",
    "https://example.internals/",
    "https://1.example.com/",
    "https://1e100.net/",
]

NOT_PUBLIC = {
    "not https": [
        "",
        "example.com/a.jpg",
        "//example.com/a.jpg",
        "/a.jpg",
        "http://example.com/a.jpg",
        "ftp://example.com/a.jpg",
        "file:///etc/passwd",
        "data:image/png;base64,AAAA",
        "javascript:alert(1)",
        "https:example.com",
        "https:/example.com/",
        "https//example.com/",
        "https",
        "httpss://example.com/",
    ],
    "no host": [
        "https://",
        "https:///a.jpg",
        "https://:443/",
        "https://?x",
        "https://#x",
        "https://./",
        "https://../",
        "https://.com/",
        "https://example..com/",
        "https://example.com../",
        "https://exa<mple.com/",
        "https://exa%6dple.com/",
        "https://exa|mple.com/",
        "https://exa{m}ple.com/",
        "https://exa^mple.com/",
        "https://exa\u2100mple.com/",
    ],
    "local names": [
        "https://localhost/",
        "https://LOCALHOST/",
        "https://localhost:8080/",
        "https://localhost./",
        "https://a.localhost/",
        "https://printer.local/",
        "https://printer.local:443/a?b#c",
        "https://Printer.LOCAL./",
        "https://metadata.google.internal/",
        "https://intranet/",
        "https://intranet:8443/",
        "https://com/",
        "https://a.\uff4cocal/",
        "https://a.\u24db\u24de\u24d2\u24d0\u24db/",
        "https://www.example\u3002local/",
        "https://www.example\uff0elocal/",
        "https://www.example\uff61local/",
        "https://\uff4cocalhost/",
    ],
    "local IPv4": [
        "https://127.0.0.1/",
        "https://127.8.9.1:8443/",
        "https://0.0.0.0/",
        "https://10.0.0.1/",
        "https://172.16.0.1/",
        "https://172.31.255.255/",
        "https://192.168.1.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://100.64.0.1/",
        "https://100.127.255.255/",
        "https://192.0.2.1/",
        "https://198.18.0.1/",
        "https://224.0.0.1/",
        "https://240.0.0.1/",
        "https://255.255.255.255/",
        "https://\uff11\uff12\uff17.0.0.1/",
        "https://127\uff0e0\uff0e0\uff0e1/",
        "https://127\u30020\u30020\u30021/",
    ],
    "local IPv6": [
        "https://[::]/",
        "https://[::1]/",
        "https://[::1]:8443/",
        "https://[0:0:0:0:0:0:0:1]/",
        "https://[fe80::1]/",
        "https://[fc00::1]/",
        "https://[fd12:3456::1]/",
        "https://[ff02::1]/",
        "https://[2001:db8::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[::ffff:7f00:1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://[::ffff:169.254.169.254]/",
        "https://[::ffff:224.0.0.1]/",
        "https://[::127.0.0.1]/",
        "https://[64:ff9b::7f00:1]/",
        "https://[2002:7f00:1::]/",
        "https://[2002:a00:1::1]/",
        "https://[2002:808:808::1]/",
    ],
    "odd addresses": [
        "https://2130706433/",
        "https://0x7f000001/",
        "https://0x7f.0.0.1/",
        "https://127.0.0.0x1/",
        "https://017700000001/",
        "https://0177.0.0.1/",
        "https://127.1/",
        "https://127.0.1/",
        "https://1.2.3.4.5/",
        "https://256.1.1.1/",
        "https://08.8.8.8/",
        "https://example.123/",
        "https://8.8.8.8./",
        "https://[8.8.8.8]/",
        "https://[8.8.8.8/",
        "https://8.8.8.8]/",
        "https://[]/",
        "https://[::1/",
        "https://::1/",
        "https://[2606:4700::1111%25eth0]/",
        "https://[2606:4700::1111%eth0]/",
        "https://[v1.x]/",
        "https://[example.com]/",
        "https://\u00b2\u00b2\u2077.1/",
        "https://a.\u0661\u0662\u0667/",
    ],
    "user names": [
        "https://user@example.com/",
        "https://user:pass@example.com/",
        "https://@example.com/",
        "https://:@example.com/",
        "https://example.com@127.0.0.1/",
        "https://example.com:443@localhost/",
        "https://example.com\\@127.0.0.1/",
    ],
    "bad ports": [
        "https://example.com:/",
        "https://example.com:0/",
        "https://example.com:00/",
        "https://example.com:65536/",
        "https://example.com:99999/",
        "https://example.com:123456/",
        "https://example.com:-1/",
        "https://example.com:8a/",
        "https://example.com:\u0664\u0664\u0663/",
        "https://example.com:443:443/",
        "https://8.8.8.8:0/",
        "https://[2606:4700::1]x/",
    ],
    "white space and control characters": [
        " https://example.com/",
        "https://example.com/ ",
        "https://example.com/a b.jpg",
        "https://exam ple.com/",
        "https://example.com/\n",
        "https://example.com\n",
        "https://example.com/\r\nHost: x",
        "https://example.com/\ta",
        "https://example.com/\x00",
        "https://example.com/\x7f",
        "https://example.com/\x1f",
        "https://example.com/\u00a0",
        "https://example.com/\u2028",
        "\ufeffhttps://example.com/",
        f"https://example.com/{SURROGATE}",
        f"https://{SURROGATE}.com/",
    ],
    "backslashes": [
        "https:\\\\example.com\\",
        "https://example.com\\a.jpg",
        "https://127.0.0.1\\.example.com/",
        "https://\\example.com/",
    ],
}


@pytest.mark.parametrize("url", PUBLIC, ids=kind_of)
def test_public_urls_pass_unchanged(url: str) -> None:
    """A public https URL is sent as it was given."""
    assert url is _validation.public_url("source_url", url)


@pytest.mark.parametrize("url", [url for urls in NOT_PUBLIC.values() for url in urls], ids=kind_of)
def test_other_urls_are_refused(url: str) -> None:
    """What the service could not fetch is refused, by the field's name and the value."""
    with pytest.raises(InvalidRequestError) as caught:
        _validation.public_url("target_url", url)

    assert ("target_url", url) == (caught.value.field, caught.value.value)
    assert str(caught.value).startswith("target_url must ")
    assert str(caught.value).endswith(f"; got {url!r}")


@pytest.mark.parametrize("value", NO_STRINGS, ids=kind_of)
def test_a_url_is_a_string(value: object) -> None:
    """Nothing but a string is taken for a URL."""
    with pytest.raises(InvalidRequestError, match="must be a string") as caught:
        _validation.public_url("source_url", value)

    assert ("source_url", value) == (caught.value.field, caught.value.value)


PIECES = st.sampled_from(
    [
        *("https://", "http://", "HTTPS://", "https:", "//", "/", "@", ":", "?", "#", "[", "]"),
        *(
            ".",
            "..",
            "-",
            "_",
            "%",
            "\\",
            " ",
            "\n",
            "\x00",
            SURROGATE,
            "\u200b",
            "\uff0e",
            "\u3002",
            "\u24db",
        ),
        *(
            "example",
            "com",
            "localhost",
            "local",
            "internal",
            "xn--",
            "é",
            "127",
            "0x7f",
            "8.8.8.8",
        ),
        *("10.0.0.1", "::1", "[::1]", "[2606:4700::1]", "443", "0", "65536", "a", "1", "user"),
    ]
)
URL_LIKE = st.lists(PIECES, max_size=8).map("".join)
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=40)
URLS = st.one_of(
    ANY_TEXT, URL_LIKE, URL_LIKE.map("https://{}".format), ANY_TEXT.map("https://{}".format)
)


@PROPERTY
@given(URLS)
def test_a_url_is_returned_or_refused(url: str) -> None:
    """Whatever the string is, it comes back unchanged, or an error names field and value."""
    try:
        assert url is _validation.public_url("source_url", url)
    except InvalidRequestError as error:
        assert ("source_url", url) == (error.field, error.value)  # noqa: PT017
        assert error.message.startswith("source_url must ")  # noqa: PT017


@PROPERTY
@given(URLS)
def test_what_passes_is_public_to_others_too(url: str) -> None:
    """What is let through is https with a dotted host, as the standard library reads it."""
    try:
        _validation.public_url("source_url", url)
    except InvalidRequestError:
        return

    parts = urlsplit(url)
    host = parts.hostname or ""
    assert parts.scheme == "https"
    assert parts.username is None
    assert "." in host or "\u3002" in host or "\uff61" in host or "\uff0e" in host or ":" in host
    if re.fullmatch(r"[0-9.]+|.*:.*", host):
        assert ipaddress.ip_address(host).is_loopback is False


LABELS = st.text("abz019-_.", min_size=1, max_size=6) | st.sampled_from(["127", "local", "xn--a"])
ORDINARY = st.builds(
    "https://{}.{}{}{}".format,
    LABELS,
    LABELS | st.sampled_from(["com", "local", "localhost", "internal", "local-x", "0x7f", "1"]),
    st.sampled_from(["", ":", ":0", ":1", ":443", ":0443", ":65535", ":65536", ":a"]),
    st.sampled_from(["", "/", "?", "#", "/@", "\\", "@x", "/\x00", "/\xa0", f"/{SURROGATE}", "."]),
)


@PROPERTY
@given(URLS | ORDINARY)
@example("https://example.com:65536/")
@example("https://a.local/")
@example("https://a.local-cdn/")
@example("https://example.com:0443/")
def test_the_fast_path_accepts_nothing_more(url: str) -> None:
    """What is recognised at once would also pass the look in detail."""
    if _validation._ORDINARY_URL.fullmatch(url):
        assert _validation._url_fault(url) is None


@PROPERTY
@given(st.ip_addresses(v=4) | st.ip_addresses(v=6))
def test_addresses(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """An address that is not global is refused, in either version."""
    url = f"https://{address}/" if address.version == 4 else f"https://[{address}]/"

    seen = getattr(address, "ipv4_mapped", None) or address
    if seen.is_private or seen.is_loopback or seen.is_link_local or seen.is_multicast:
        with pytest.raises(InvalidRequestError):
            _validation.public_url("source_url", url)
    elif seen.version == 4 and seen.is_global:
        assert url == _validation.public_url("source_url", url)


@PROPERTY
@given(st.ip_addresses(v=4, network="10.0.0.0/8") | st.ip_addresses(v=4, network="127.0.0.0/8"))
def test_no_spelling_of_a_private_address_passes(address: ipaddress.IPv4Address) -> None:
    """Decimal, hexadecimal, octal, short and mapped spellings of an address are refused."""
    number = int(address)
    first, rest = number >> 24, number & 0xFFFFFF
    spellings = [
        str(address),
        str(number),
        hex(number),
        f"0{number:o}",
        f"{first}.{rest}",
        f"{first:#x}.{rest:#x}",
        f"[::ffff:{address}]",
        f"[::{address}]",
        f"[2002:{number >> 16:x}:{number & 0xFFFF:x}::]",
        str(address).replace(".", "\u3002"),
    ]

    for host in spellings:
        with pytest.raises(InvalidRequestError):
            _validation.public_url("source_url", f"https://{host}/")


# --- ids, pages, keys ----------------------------------------------------------------------

Check = Callable[[object], object]


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (_validation.swap_id, "tsk_1a2B"),
        (_validation.swap_id, "a.b~c-d_e"),
        (_validation.swap_id, "..."),
        (_validation.swap_id, "0"),
        (_validation.page_limit, 1),
        (_validation.page_limit, 25),
        (_validation.page_limit, 100),
        (_validation.cursor, "eyJpZCI6MX0="),
        (_validation.cursor, " &?#/ü\n"),
        (_validation.idempotency_key, "6c2d1b1e-8a55-4c0e-9a0e-6a2f5c7c0f3e"),
        (_validation.idempotency_key, "!~" + string.ascii_letters),
        (_validation.content, b""),
        (_validation.content, b"\x00\xff"),
    ],
    ids=kind_of,
)
def test_good_values_pass_unchanged(check: Check, value: object) -> None:
    """What can be sent comes back as it is."""
    assert value is check(value)


REFUSED: dict[Check, list[object]] = {
    _validation.swap_id: [
        *NO_STRINGS,
        *("", ".", "..", "a/b", "/a", "a/", "../me", "a?b", "a#b", "a%2Fb", "a b", "a\n", "ü"),
        *("a\\b", "a\x00", "https://x", "tsk_1\r\nX: 1", SURROGATE),
    ],
    _validation.page_limit: [
        *(None, 0, -1, 101, 10**5000, 25.0, math.nan, "25", True, False, [1], b"1"),
    ],
    _validation.cursor: [*NO_STRINGS, "", SURROGATE],
    _validation.idempotency_key: [
        *NO_STRINGS,
        *("", " ", "a b", "a\n", "a\r\nX: 1", "\x00", "ü", "\x7f", SURROGATE),
    ],
    _validation.method: [
        *NO_STRINGS,
        "",
        " ",
        "GET ",
        "GE T",
        "GET\r\n",
        "G-T",
        "\uff27\uff25\uff34",
        "1",
    ],
    _validation.content: ["text", None, 1, bytearray(b"x"), memoryview(b"x"), [b"x"], {"a": 1}],
    _validation.path: [
        *NO_STRINGS,
        *("", "me", "//", "//evil.example/me", "///me", "https://evil.example/", "\\me", "/\\evil"),
        *("/a?b=1", "/a#b", "/a b", "/a\n", "/a\r\nX: 1", "/a\x00", "/a\x7f", f"/{SURROGATE}"),
        *("/.", "/..", "/../x", "/swaps/../../x", "/swaps/.", "/swaps/..", "/./x", "/a/./b"),
        *("/%2e", "/%2e%2e/x", "/%2E%2E/x", "/.%2e/x", "/%2e./x", "/a/%2E%2e"),
        *("/a%2f..%2fb", "/a%2F%2e%2e%2Fb", "/..%2fx", "/a/..%5c..%5cb", "/a%5c..%5Cb"),
    ],
}


@pytest.mark.parametrize(
    ("check", "value"),
    [(check, value) for check, values in REFUSED.items() for value in values],
    ids=kind_of,
)
def test_bad_values_are_refused(check: Check, value: object) -> None:
    """What cannot be sent is refused by the argument's name, with the value on the error."""
    names = {"page_limit": "limit"}
    field = names.get(check.__name__, check.__name__)

    with pytest.raises(InvalidRequestError, match=f"^{field} must ") as caught:
        check(value)

    assert field == caught.value.field
    assert value is caught.value.value


@pytest.mark.parametrize("given_method", ["get", "GET", "Get"])
def test_a_method_is_sent_in_upper_case(given_method: str) -> None:
    """The method may be written in any case."""
    assert _validation.method(given_method) == "GET"


# --- paths, queries, headers ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/", "/"),
        ("/me", "/me"),
        ("/swaps/", "/swaps/"),
        ("/swaps/tsk_1:cancel", "/swaps/tsk_1:cancel"),
        ("/a%20b", "/a%20b"),
        ("/a%2Fb", "/a%2Fb"),
        ("/ü", "/%C3%BC"),
        ('/a"<>b', "/a%22%3C%3Eb"),
        ("/...", "/..."),
        ("/.well-known/x", "/.well-known/x"),
        ("/a..b/c.", "/a..b/c."),
        ("/a@b;c=d,e+f&g", "/a@b;c=d,e+f&g"),
        ("/a//b", "/a//b"),
    ],
)
def test_paths_are_encoded_once(path: str, sent: str) -> None:
    """A path below the base URL is percent-encoded where it was not."""
    assert sent == _validation.path(path)


@PROPERTY
@given(
    st.one_of(ANY_TEXT, st.lists(PIECES | st.just("%2e"), max_size=8).map("".join)).map(
        "/{}".format
    )
)
def test_no_path_leads_elsewhere(path: str) -> None:
    """Whatever the path is, what is sent stays below the base URL, or the path is refused."""
    try:
        sent = _validation.path(path)
    except InvalidRequestError as error:
        assert ("path", path) == (error.field, error.value)  # noqa: PT017
        return

    assert sent.isascii()
    assert sent.startswith("/")
    assert not sent.startswith("//")
    assert {".", ".."}.isdisjoint(unquote(sent).replace("\\", "/").split("/"))
    assert not re.search(r"[?#\\\s]", sent)


@pytest.mark.parametrize(
    ("params", "sent"),
    [
        ({}, ""),
        ({"limit": 5}, "?limit=5"),
        ({"a": "x y&z=ü/", "b": 1.5}, "?a=x+y%26z%3D%C3%BC%2F&b=1.5"),
        ({"on": True, "off": False}, "?on=true&off=false"),
        ({"": ""}, "?="),
        ({"a b": "\r\n"}, "?a+b=%0D%0A"),
        ({"n": 10**100}, f"?n={10**100}"),
    ],
    ids=["none", "number", "text", "booleans", "empty", "line break", "large"],
)
def test_queries(params: Mapping[str, object], sent: str) -> None:
    """Parameters are written as a percent-encoded query."""
    assert sent == _validation.query(params)


@PROPERTY
@given(st.dictionaries(st.text(min_size=1), st.text()))
def test_a_query_says_what_was_given(params: dict[str, str]) -> None:
    """Whatever the names and texts are, the other side reads the same."""
    assert params == dict(parse_qsl(_validation.query(params)[1:], keep_blank_values=True))


@pytest.mark.parametrize(
    "value",
    [None, math.nan, math.inf, -math.inf, [1], {"a": 1}, b"x", ..., 10**5000, SURROGATE],
    ids=kind_of,
)
def test_values_of_a_query(value: object) -> None:
    """What has no plain text is refused as a parameter, by its name."""
    with pytest.raises(InvalidRequestError, match=re.escape("params['cursor'] must ")) as caught:
        _validation.query({"cursor": value})

    assert value is caught.value.value


@pytest.mark.parametrize("name", [1, None, b"x", SURROGATE], ids=kind_of)
def test_names_of_a_query(name: Any) -> None:
    """Only text is the name of a parameter."""
    with pytest.raises(InvalidRequestError, match=r"^params must "):
        _validation.query({name: "x"})


def test_headers_are_copied() -> None:
    """As they were when the call was made, in the spelling of the client's own."""
    given_headers = {"X-Trace": "a b\tc", "accept": "", "X~!#$%&'*+.^_`|9": "~"}

    checked = _validation.headers(MappingProxyType(given_headers))

    assert {name.title(): value for name, value in given_headers.items()} == checked
    assert given_headers is not checked


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", "a b", "a:", "a\n", "X\r\nY", "ü", "(x)", "a\x00", 'a"', "a/b", SURROGATE),
        *(1, None, b"X", ("X",)),
    ],
    ids=kind_of,
)
def test_names_of_headers(name: Any) -> None:
    """What is no header name is refused before it could split a request."""
    with pytest.raises(InvalidRequestError, match="must have HTTP header names") as caught:
        _validation.headers({name: "x"})

    assert ("headers", name) == (caught.value.field, caught.value.value)


@pytest.mark.parametrize(
    "name",
    [
        *("Authorization", "authorization", "AUTHORIZATION", "Host", "Content-Length"),
        *("Transfer-Encoding", "Connection", "Idempotency-Key", "idempotency-key"),
    ],
)
def test_reserved_headers(name: str) -> None:
    """Headers that carry the key, the frame or the idempotency are the client's alone."""
    with pytest.raises(InvalidRequestError, match="must not include headers set by the client"):
        _validation.headers({name: "x"})


@pytest.mark.parametrize(
    "value",
    [*("a\n", "a\r\nX: 1", "\r", "\x00", "\x7f", "ü", "\u2028", SURROGATE), None, 1, b"x", ["x"]],
    ids=kind_of,
)
def test_values_of_headers(value: object) -> None:
    """A header's value is one line of ASCII."""
    with pytest.raises(InvalidRequestError, match=re.escape("headers['X-A'] must ")) as caught:
        _validation.headers({"X-A": value})

    assert value is caught.value.value


# --- the client's own settings -------------------------------------------------------------


@pytest.mark.parametrize("key", ["k", "sk_live_1234", "!~" + string.punctuation])
def test_keys_pass_unchanged(key: str) -> None:
    """A key of visible ASCII is sent as it is."""
    assert key is _validation.api_key(key).reveal()


@pytest.mark.parametrize("key", [f"{{}}{end}" for end in ("\n", "\r\n", " ")])
def test_a_key_from_a_file_can_end_in_a_newline(key: str) -> None:
    """White space around a key is never part of it."""
    assert _validation.api_key(key.format("sk_live_1234")).reveal() == "sk_live_1234"


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_secret_copies_but_does_not_pickle(copied: Callable[[Secret], Secret]) -> None:
    """Frameworks copy what they are given; a pickle would write the key to a disk or a queue."""
    secret = Secret("zq9Secret")

    assert copied(secret) == secret
    assert hash(copied(secret)) == hash(secret)
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(secret)


@pytest.mark.parametrize("key", [None, ""])
def test_a_missing_key(key: object) -> None:
    """Without a key the error says where one is looked for."""
    with pytest.raises(ConfigurationError, match="AIFACESWAP_API_KEY"):
        _validation.api_key(key)


SECRET = "zq9Secret"


@pytest.mark.parametrize(
    ("key", "position"),
    [
        (f"{SECRET}\r\nX-Evil: 1", 9),
        (f"{SECRET} {SECRET}", 9),
        (f"{SECRET}\x00", 9),
        (f"“{SECRET}”", 0),
        (f"{SECRET}ü", 9),
        (f"{SECRET}\u200b", 9),
        (f"{SECRET}{SURROGATE}", 9),
    ],
    ids=kind_of,
)
def test_a_broken_key_is_not_shown(key: str, position: int) -> None:
    """A key with a line break or a typographic quote is refused without being shown."""
    with pytest.raises(ConfigurationError, match=f"position {position} is not") as caught:
        _validation.api_key(key)

    assert SECRET not in "".join(traceback.format_exception_only(caught.value))
    assert SECRET not in repr(vars(caught.value))


@pytest.mark.parametrize(
    "key", [SECRET.encode(), [SECRET], {"key": SECRET}, True, 1], ids=lambda v: type(v).__name__
)
def test_a_key_is_a_string(key: object) -> None:
    """A key of another type is named by its type alone."""
    with pytest.raises(
        ConfigurationError, match=f"must be a string; got {type(key).__name__}$"
    ) as caught:
        _validation.api_key(key)

    assert SECRET not in repr(caught.value)


@PROPERTY
@given(ANY_TEXT.filter(bool))
def test_no_key_is_shown(key: str) -> None:
    """Whatever the key is, it is sent whole or its value stays out of the error."""
    marked = f"{SECRET}{key}{SECRET}"
    try:
        assert marked is _validation.api_key(marked).reveal()
    except ConfigurationError as error:
        assert SECRET not in f"{error} {error!r} {vars(error)}"  # noqa: PT017


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://aifacesswap.com/api/v1", "https://aifacesswap.com/api/v1"),
        ("https://aifacesswap.com/api/v1/", "https://aifacesswap.com/api/v1"),
        ("https://proxy.intranet:8443", "https://proxy.intranet:8443"),
        ("https://10.0.0.1/api", "https://10.0.0.1/api"),
        ("https://[2606:4700::1]/api", "https://[2606:4700::1]/api"),
        ("http://localhost:8000/api/v1", "http://localhost:8000/api/v1"),
        ("http://LOCALHOST:8000", "http://LOCALHOST:8000"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000"),
        ("http://127.5.5.5", "http://127.5.5.5"),
        ("http://[::1]:8000/api", "http://[::1]:8000/api"),
        ("http://[::ffff:127.0.0.1]/api", "http://[::ffff:127.0.0.1]/api"),
    ],
)
def test_base_urls(url: str, kept: str) -> None:
    """The key goes to https, or over plain http to this machine; a last slash is dropped."""
    assert kept == _validation.base_url(url)


@pytest.mark.parametrize(
    "url",
    [
        *NO_STRINGS,
        *("", "/", "/api/v1", "aifacesswap.com/api", "//aifacesswap.com", "https://", "https:///x"),
        *("ftp://example.com", "ws://localhost", "file:///x", "javascript:x", "unix:///x"),
        *("http://example.com/api", "http://10.0.0.1", "http://0.0.0.0", "http://127.1"),
        *("http://localhost.example.com", "http://localhost@example.com", "http://2130706433"),
        *("http://127.0.0.1.example.com", "http://[::2]", "http://[fe80::1]", "http://localhost."),
        *("https://example.com/?x=1", "https://example.com?", "https://example.com/#x"),
        *("https://user@example.com", "https://user:pass@example.com", "https://example.com/@x"),
        *("https://example.com:x", "https://example.com:99999", "https://[::1", "https://[x]/"),
        *("https://exam ple.com", " https://example.com", "https://example.com/\n", "https://a\tb"),
        *("https://example.com\r\nX: 1", "https://example.com\\@evil.example", "https://a\\b/"),
        *("https://example.com/\x00", f"https://example.com/{SURROGATE}", "https://a\u2100b.com"),
    ],
    ids=kind_of,
)
def test_base_urls_where_no_key_may_go(url: object) -> None:
    """Any other base URL is refused, and the error shows what a right one looks like."""
    with pytest.raises(ConfigurationError, match=r"^base_url must ") as caught:
        _validation.base_url(url)

    assert "https://aifacesswap.com/api/v1" in caught.value.message


@PROPERTY
@given(URLS | URL_LIKE.map("http://{}".format))
def test_plain_http_goes_to_this_machine_alone(url: str) -> None:
    """Whatever the base URL is, it is https or this machine, or it is refused."""
    try:
        kept = _validation.base_url(url)
    except ConfigurationError:
        return

    parts = urlsplit(kept)
    assert parts.scheme == "https" or _validation.is_loopback(parts.hostname)
    assert parts.username is None
    assert not parts.query
    assert not parts.fragment


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("LocalHost", True),
        ("127.0.0.1", True),
        ("127.255.255.254", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:8.8.8.8", False),
        ("localhost.example.com", False),
        ("a.localhost", False),
        ("127.1", False),
        ("0.0.0.0", False),
        ("::", False),
        ("8.8.8.8", False),
        ("", False),
        (None, False),
    ],
)
def test_loopback(host: str | None, loopback: bool) -> None:
    """Only names and addresses that cannot be another machine count as this one."""
    assert loopback is _validation.is_loopback(host)


@pytest.mark.parametrize("value", [1, 0.001, 30.0, 10**9, 1e300, 5e-324], ids=repr)
def test_seconds(value: float) -> None:
    """Any finite number above 0 is a span of time, and comes back as a float."""
    checked = _validation.seconds("timeout", value)

    assert (float(value), float) == (checked, type(checked))


@pytest.mark.parametrize(
    "value",
    [
        *(0, 0.0, -0.0, -1, -1e-9, math.nan, math.inf, -math.inf, 10**400, 10**5000, -(10**400)),
        *(True, False, None, "30", b"30", [30], 30j),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_span_of_time(value: object) -> None:
    """Nothing else is: not 0, a negative or endless number, a boolean or a string."""
    with pytest.raises(
        ConfigurationError, match=r"^timeout must be a number of seconds above 0; got "
    ):
        _validation.seconds("timeout", value)


def test_least_seconds() -> None:
    """Where a least span is named, it must be exceeded."""
    assert _validation.seconds("per", 1.5, at_least=1.0) == 1.5
    with pytest.raises(ConfigurationError, match=r"above 1;"):
        _validation.seconds("per", 1.0, at_least=1.0)


@pytest.mark.parametrize(
    ("url", "address", "authorization"),
    [
        ("http://proxy.example:3128", "http://proxy.example:3128", None),
        ("https://proxy.example", "https://proxy.example", None),
        ("http://[::1]:3128", "http://[::1]:3128", None),
        ("http://user:pass@10.0.0.1:3128/", "http://10.0.0.1:3128/", "Basic dXNlcjpwYXNz"),
        ("http://u:%40%3a@proxy.example", "http://proxy.example", "Basic dTpAOg=="),
        ("http://u@proxy.example", "http://proxy.example", "Basic dTo="),
    ],
)
def test_proxies(url: str, address: str, authorization: str | None) -> None:
    """A proxy is any http or https URL; its credentials are taken off and wrapped."""
    proxy = _validation.proxy(url)
    shown = None if proxy.authorization is None else proxy.authorization.reveal()

    assert (proxy.url, shown) == (address, authorization)


@pytest.mark.parametrize(
    "url",
    [
        *NO_STRINGS,
        *("", "proxy.example:3128", "socks5://proxy.example", "http://", "http://[::1", "//x"),
        *("http://user:zq9Secret@", "http://u:zq9Secret@x:99999", "http://u:zq9Secret@x:0"),
        *("ftp://u:zq9Secret@x", "http://u:zq9Secret@x:abc", "http://u:zq9Secret@[x"),
    ],
    ids=kind_of,
)
def test_what_is_no_proxy(url: object) -> None:
    """Anything else is refused, and a password in it stays out of the error."""
    with pytest.raises(ConfigurationError, match=r"^proxy must ") as caught:
        _validation.proxy(url)

    assert SECRET not in f"{caught.value!r} {vars(caught.value)}"
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=5,
)
IDENTITIES: list[Check] = [
    _validation.swap_id,
    _validation.page_limit,
    _validation.cursor,
    _validation.idempotency_key,
    _validation.content,
    lambda value: _validation.public_url("source_url", value),
]


@PROPERTY
@given(value=ANYTHING, check=st.sampled_from(IDENTITIES))
def test_checks_return_or_refuse(value: object, check: Check) -> None:
    """Whatever value a check is given, it comes back unchanged or is refused in our words."""
    try:
        assert value is check(value)
    except InvalidRequestError as error:
        assert value is error.value  # noqa: PT017


@PROPERTY
@given(value=ANYTHING)
def test_settings_return_or_refuse(value: object) -> None:
    """Whatever a setting is, it is taken or refused with a `ConfigurationError`."""
    for check in (_validation.api_key, _validation.base_url, _validation.proxy):
        try:
            assert isinstance(check(value), str | Secret | Proxy)
        except ConfigurationError as error:
            assert error.message  # noqa: PT017
