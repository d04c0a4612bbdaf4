"""Checks of user input, made before a socket is opened.

A check returns the value as it will be sent, or raises an error that names the field, what it
must be and the value. The API key and a proxy's password are never shown.
"""

from __future__ import annotations

import ipaddress
import math
import os
import re
import sys
import unicodedata
from base64 import b64encode
from collections.abc import Mapping
from typing import NoReturn, TypeVar, cast
from urllib.parse import quote, unquote, urlencode, urlsplit

import attrs

from aifaceswap._limits import API_KEY_VARIABLE, DEFAULT_BASE_URL, MAX_PAGE_SIZE
from aifaceswap.errors import ConfigurationError, InvalidRequestError, short_repr

B = TypeVar("B")

# White space, control characters, half a surrogate pair; invisible characters and delimiters that
# come along when a URL is copied out of a text.
_UNSAFE = (
    r"\s\x00-\x20\x7f\ud800-\udfff\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff"
    r"<>\"`"
)
# An ordinary public URL is accepted at once; any other is checked part by part.
_ORDINARY_URL = re.compile(
    r"https://(?:[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?\.)+"
    r"(?!(?:local|localhost|internal)\b)[a-z][a-z0-9-]*"
    r"(?::[1-9][0-9]{0,3})?(?:[/?#][^" + _UNSAFE + r"]*)?"
)
_URL_PARTS = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://"
    r"(?P<user>[^/?#@]*@)?(?P<host>\[[^\]]*\]|[^/?#:]*)(?P<rest>.*)"
)
_AFTER_HOST = re.compile(r"(?::(?P<port>[0-9]{1,5}))?(?:[/?#].*)?")
_NOT_IN_HOST = re.compile(r"[\s/?#:@\\<>\"^`{}|%\[\]]")
_NOT_IN_URL = re.compile(f"[{_UNSAFE}]")
# What the emulator's store, or an object store for tests, publishes. An emulator accepts it.
_LOCAL_FILE_URL = re.compile(
    r"http://(?:localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[1-9][0-9]{0,4})?/"
    r"(?=_emulator/files/[0-9a-f]{64}/|[^?#]*\?(?:[^#]*&)?X-Amz-Signature=)[^" + _UNSAFE + r"]+"
)
_URL_START = re.compile(r"\s*(?:[A-Za-z][A-Za-z0-9+.-]*://|data:)")
FILE_EXPECTED = "must be a path, bytes, an open binary file or a public https:// URL"
_LAST_PORT = 65535
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_LARGEST = sys.float_info.max
_LOCAL_NAMES = ("local", "localhost", "internal")
_MUST_BE_PUBLIC = "must be reachable from the internet: its host is local"
_SWAP_ID = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._~-]+")
_VISIBLE = re.compile(r"[\x21-\x7e]+")
_METHOD = re.compile(r"[A-Za-z]+")
_NOT_IN_PATH = re.compile(r"[?#\\\x00-\x20\x7f\ud800-\udfff]")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")
# The client's own: set by hand they would break authentication, framing or safe retries.
_RESERVED_HEADERS = frozenset(
    {
        "authorization",
        "connection",
        "content-length",
        "host",
        "idempotency-key",
        "transfer-encoding",
    }
)


class Secret:
    """A key or a password that no repr, log line, traceback or pickle shows.

    Callers wrap a value before anything can fail and delete their own name for it: then no
    frame that an error passes holds it in clear.
    """

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        # A key read from a file often ends in a newline.
        self._value: object = value.strip() if isinstance(value, str) else value
        if isinstance(value, Secret):
            self._value = value._value

    @classmethod
    def wrap(cls, value: object) -> Secret | None:
        """Wrap a value; None stays None."""
        return None if value is None else cls(value)

    @property
    def kind(self) -> str:
        """The name of the value's type."""
        return type(self._value).__name__

    def reveal(self) -> str:
        """The text, for a header, a signature or a digest; keep no name for it."""
        return cast("str", self._value)

    def __repr__(self) -> str:
        return "Secret('***')"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret cannot be pickled")


@attrs.frozen
class Proxy:
    """A proxy's URL without credentials, and its Proxy-Authorization header."""

    url: str
    authorization: Secret | None = None


def public_url(field: str, value: object) -> str:
    """Check that a URL is one that the service can fetch: https, on a public host."""
    if not isinstance(value, str):
        raise InvalidRequestError.for_field(
            field, value, "must be a string with a public https:// URL"
        )
    if _ORDINARY_URL.fullmatch(value) is None and (reason := _url_fault(value)):
        raise InvalidRequestError.for_field(field, value, reason)
    return value


def is_url(value: object) -> bool:
    """Whether a string is a URL: it has a scheme and ``://``. Any other string is a path."""
    return isinstance(value, str) and _URL_START.match(value) is not None


def file_source(field: str, value: object) -> None:
    """Reject what cannot be a file; whether it is there is seen when it is read."""
    is_path = isinstance(value, str | os.PathLike | bytes | bytearray | memoryview)
    if not is_path and not callable(getattr(value, "read", None)):
        raise InvalidRequestError.for_field(field, value, FILE_EXPECTED)


def is_public_url(url: str) -> bool:
    """Whether the service can fetch a URL."""
    return _ORDINARY_URL.fullmatch(url) is not None or _url_fault(url) is None


def file_url(field: str, value: object) -> str:
    """Check the URL of an image: a public one, or one that a file store on this machine signed."""
    if isinstance(value, str) and _LOCAL_FILE_URL.fullmatch(value):
        return value
    name = field.removesuffix("_url")
    if isinstance(value, str) and name != field and "://" not in value:
        reason = f"must be a public https:// URL; pass a local file as {name}="
        raise InvalidRequestError.for_field(field, value, reason)
    return public_url(field, value)


def _url_fault(url: str) -> str | None:
    if _NOT_IN_URL.search(url):
        return "must be a URL without white space, invisible characters, <, > and quotes"
    parts = _URL_PARTS.fullmatch(url)
    if parts is None or parts["scheme"].lower() != "https":
        return "must be a public https:// URL"
    if parts["user"]:
        return "must be a public URL, without a user name"
    after = _AFTER_HOST.fullmatch(parts["rest"])
    if after is None or not 0 < int(after["port"] or 443) <= _LAST_PORT:
        return f"must have a port from 1 to {_LAST_PORT}"
    return _host_fault(parts["host"])


def _host_fault(host: str) -> str | None:
    # As a resolver would read it: letters and dots have wide and circled twins.
    host = unicodedata.normalize("NFKC", host).replace("\u3002", ".").lower()
    labels = host.removesuffix(".").split(".")
    if host.startswith("[") or labels[-1][:1].isdigit():
        return _address_fault(host)
    if "" in labels or _NOT_IN_HOST.search(host):
        return "must have a valid host name"
    if labels[-1] in _LOCAL_NAMES or len(labels) == 1:
        return _MUST_BE_PUBLIC
    return None


def _address_fault(host: str) -> str | None:
    bracketed = host.startswith("[") and host.endswith("]") and "%" not in host
    try:
        address = ipaddress.IPv6Address(host[1:-1]) if bracketed else ipaddress.IPv4Address(host)
    except ValueError:
        return "must have a valid host name or IP address"
    return None if _is_public(address) else _MUST_BE_PUBLIC


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not address.is_multicast
    if address.ipv4_mapped is not None:
        return _is_public(address.ipv4_mapped)
    # 6to4 addresses carry an IPv4 address; they are retired, and newer Pythons alone say so.
    return address.is_global and address.sixtofour is None and address in _GLOBAL_UNICAST


def _is_unicode(text: str) -> bool:
    """Whether it can be sent at all: half a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def swap_id(value: object) -> str:
    """Check that this can be a swap's id: one segment of a path."""
    if not isinstance(value, str) or not _SWAP_ID.fullmatch(value):
        reason = "must be the id of a swap like 'tsk_1a2b' (letters, digits, . _ ~ -)"
        raise InvalidRequestError.for_field("swap_id", value, reason)
    return value


def row_id(value: object) -> str | None:
    """Check the caller's own name of a bulk row; an integer becomes text.

    Raises:
        InvalidRequestError: It is neither text nor an integer, or is empty.
    """
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip() or not _is_unicode(value):
        fault = "must be text that is not empty, or an integer"
        raise InvalidRequestError.for_field("row_id", value, fault)
    return value


def page_limit(value: object) -> int:
    """Check the size of a page."""
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_PAGE_SIZE:
        raise InvalidRequestError.for_field(
            "limit", value, f"must be a whole number from 1 to {MAX_PAGE_SIZE}"
        )
    return value


def cursor(value: object) -> str:
    """Check that this can be a cursor: it is opaque, but never empty."""
    if not isinstance(value, str) or not value or not _is_unicode(value):
        raise InvalidRequestError.for_field("cursor", value, "must be the next_cursor of a page")
    return value


def idempotency_key(value: object) -> str:
    """Check that a caller's own key can be sent as a header."""
    if not isinstance(value, str) or not _VISIBLE.fullmatch(value):
        reason = "must be a string of visible ASCII without spaces, e.g. str(uuid.uuid4())"
        raise InvalidRequestError.for_field("idempotency_key", value, reason)
    return value


def method(value: object) -> str:
    """Check an HTTP method."""
    if not isinstance(value, str) or not _METHOD.fullmatch(value):
        raise InvalidRequestError.for_field("method", value, "must be an HTTP method like 'GET'")
    return value.upper()


def path(value: object) -> str:
    """Check that a path stays below the base URL: that is as far as the key may go."""
    if not isinstance(value, str) or not value.startswith("/") or value.startswith("//"):
        raise InvalidRequestError.for_field("path", value, "must start with one slash, like '/me'")
    if _NOT_IN_PATH.search(value):
        reason = "must not contain ?, #, a backslash or white space; use params= for a query"
        raise InvalidRequestError.for_field("path", value, reason)
    # As a proxy may read it that decodes first and resolves dots then.
    decoded = unquote(value).replace("\\", "/")
    if any(segment in {".", ".."} for segment in decoded.split("/")):
        raise InvalidRequestError.for_field(
            "path", value, "must stay below base_url: no '.' or '..' segments"
        )
    return quote(value, safe="/%:@!$&'()*+,;=~")


def query(params: Mapping[str, object]) -> str:
    """Write query parameters."""
    written = {_query_name(name): _query_text(name, value) for name, value in params.items()}
    return f"?{urlencode(written)}" if written else ""


def _query_name(name: object) -> str:
    if not isinstance(name, str) or not _is_unicode(name):
        raise InvalidRequestError.for_field("params", name, "must have strings as names")
    return name


def _query_text(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and _is_unicode(value):
        return str(value)
    if isinstance(value, int | float) and -_LARGEST <= value <= _LARGEST:
        return str(value)
    raise InvalidRequestError.for_field(
        f"params[{name!r}]", value, "must be a string, a boolean or a finite number"
    )


def headers(values: Mapping[str, object]) -> dict[str, str]:
    """Check a caller's own headers."""
    checked: dict[str, str] = {}
    for name, value in values.items():
        if not _is_header_name(name):
            raise InvalidRequestError.for_field("headers", name, "must have HTTP header names")
        if name.lower() in _RESERVED_HEADERS:
            raise InvalidRequestError.for_field(
                "headers", name, "must not include headers set by the client"
            )
        if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
            raise InvalidRequestError.for_field(
                f"headers[{name!r}]", value, "must be one line of ASCII"
            )
        # In one spelling, so that it takes the place of the client's own and not one beside it.
        checked[name.title()] = value
    return checked


def content(value: object) -> bytes:
    """Check a caller's own body: bytes, which nobody can change between two attempts."""
    if not isinstance(value, bytes):
        raise InvalidRequestError.for_field("content", value, "must be bytes")
    return value


def _is_header_name(name: object) -> bool:
    return isinstance(name, str) and _HEADER_NAME.fullmatch(name) is not None


def api_key(value: object) -> Secret:
    """Check that this can be sent as a key. Its value appears in no message and no frame."""
    key = Secret(value)
    del value
    if key in _MISSING_KEYS:
        raise ConfigurationError(
            f"api_key is missing; set {API_KEY_VARIABLE} or pass api_key=… "
            "(to try the package without a key: aifaceswap --emulator me)",
            field="api_key",
        )
    if key.kind != "str":
        raise ConfigurationError(f"api_key must be a string; got {key.kind}", field="api_key")
    if (position := _invisible_at(key)) is not None:
        raise ConfigurationError(
            f"api_key must be visible ASCII without spaces (position {position} is not); "
            "use only the key itself, without 'Bearer ', quotes or line breaks",
            field="api_key",
        )
    return key


_MISSING_KEYS = (Secret(None), Secret(""))


def _invisible_at(key: Secret) -> int | None:
    """Where a key has a character that no key has; None: nowhere."""
    bad = re.search(r"[^\x21-\x7e]", key.reveal())
    return None if bad is None else bad.start()


def base_url(value: object) -> str:
    """Check that the key may go there: https, or plain http to this machine."""
    reason = _base_url_fault(value) if isinstance(value, str) else "must be a string"
    if reason:
        # A password in it must not be shown.
        given = "" if "@" in str(value) else f"; got {short_repr(value)}"
        text = f"base_url {reason}, like {DEFAULT_BASE_URL!r}{given}"
        raise ConfigurationError(text, field="base_url")
    return str(value).rstrip("/")


def _base_url_fault(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        return f"must be a valid URL ({error})"
    if not host or _NOT_IN_URL.search(url) or "\\" in url:
        return "must be an absolute URL"
    if "?" in url or "#" in url or "@" in url:
        return "must not contain a query, a fragment or a user name"
    if parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)):
        return None
    return "must be https (plain http only to this machine)"


def is_loopback(host: str | None) -> bool:
    """Whether a host can only be this machine: ``localhost`` or a loopback address."""
    try:
        address = ipaddress.ip_address(host or "")
    except ValueError:
        return host is not None and host.lower() == "localhost"
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def seconds(
    field: str,
    value: object,
    *,
    at_least: float = 0.0,
    error: type[ConfigurationError | InvalidRequestError] = ConfigurationError,
) -> float:
    """Check a finite number of seconds above `at_least`; raise `error` for anything else."""
    usable = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if at_least < usable <= _LARGEST:
        return float(usable)
    raise error.for_field(field, value, f"must be a number of seconds above {at_least:g}")


def max_wait(value: object) -> float:
    """Check how long a call may wait for rate limits: seconds, 0 or more; infinite: no maximum."""
    return non_negative_number("max_wait", value, "a number of seconds", ConfigurationError)


def non_negative_number(
    field: str,
    value: object,
    kind: str,
    error: type[ConfigurationError | InvalidRequestError],
) -> float:
    """Check a number, 0 or more, or infinite; raise `error` for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        # An integer that no float can hold is larger than any limit.
        return float(value) if value <= _LARGEST else math.inf
    raise error.for_field(field, value, f"must be {kind}, 0 or more")


def non_negative_integer(field: str, value: object) -> int:
    """Check a whole number of 0 or more."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise ConfigurationError.for_field(field, value, "must be a whole number, 0 or more")


def positive_integer(
    field: str,
    value: object,
    error: type[ConfigurationError | InvalidRequestError] = ConfigurationError,
) -> int:
    """Check a whole number from 1 up; raise `error` for anything else."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise error.for_field(field, value, "must be a whole number, 1 or more")


def budget(value: B) -> B:
    """Check that this can serve as a `RequestBudget`; None means no budget."""
    if value is None or (hasattr(value, "acquire") and hasattr(value, "penalize")):
        return value
    raise ConfigurationError.for_field("budget", value, "must be a Budget, 'shared' or None")


def proxy(value: object) -> Proxy:
    """Check the URL of a proxy and take its credentials off; it appears in no message."""
    given = Secret(value)
    del value
    parsed = _proxy_of(given) if given.kind == "str" else None
    if parsed is None:
        text = "proxy must be a URL like 'http://proxy.example:3128'"
        raise ConfigurationError(text, field="proxy")
    return parsed


def _proxy_of(given: Secret) -> Proxy | None:
    """A proxy's URL in its two parts; None: it is not a URL."""
    try:
        parts = urlsplit(given.reveal())
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme not in {"http", "https"} or not host or port == 0:
        return None
    user, _, address = parts.netloc.rpartition("@")
    url = parts._replace(netloc=address).geturl()
    if not user:
        return Proxy(url)
    name, _, password = user.partition(":")
    credentials = b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode()
    return Proxy(url, Secret(f"Basic {credentials}"))
