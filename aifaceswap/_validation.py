"""What may be sent: one check for each kind of input, before a socket is opened.

A check returns the value as it will be sent, or raises an error that names the field, the
value and what would be right. Only the API key's value is never shown.
"""

from __future__ import annotations

import ipaddress
import math
import re
import sys
import unicodedata
from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import quote, unquote, urlencode, urlsplit

from aifaceswap._limits import API_KEY_VARIABLE, DEFAULT_BASE_URL, MAX_PAGE_SIZE
from aifaceswap.errors import ConfigurationError, InvalidRequestError, short_repr

B = TypeVar("B")

# An ordinary public URL, recognised at once; whatever else is given is looked at in detail.
_ORDINARY_URL = re.compile(
    r"https://(?:[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?\.)+"
    r"(?!(?:local|localhost|internal)\b)[a-z][a-z0-9-]*"
    r"(?::[1-9][0-9]{0,3})?(?:[/?#][^\s\x00-\x20\x7f\ud800-\udfff]*)?"
)
_URL_PARTS = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://"
    r"(?P<user>[^/?#@]*@)?(?P<host>\[[^\]]*\]|[^/?#:]*)(?P<rest>.*)"
)
_AFTER_HOST = re.compile(r"(?::(?P<port>[0-9]{1,5}))?(?:[/?#].*)?")
_NOT_IN_HOST = re.compile(r"[\s/?#:@\\<>\"^`{}|%\[\]]")
_NOT_IN_URL = re.compile(r"[\s\x00-\x20\x7f\ud800-\udfff]")
_LAST_PORT = 65535
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_LARGEST = sys.float_info.max
_LOCAL_NAMES = ("local", "localhost", "internal")
_IS_LOCAL = "is local; the service can only fetch what is public"
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


def public_url(field: str, value: object) -> str:
    """Check that a URL is one that the service can fetch: https, on a public host.

    Names are not resolved: that is the service's part (``source_unreachable``).

    Args:
        field: The name of the argument, for the error.
        value: What was given.

    Returns:
        The URL as it was given.

    Raises:
        InvalidRequestError: It is no string, not https, malformed, or its host is local.
    """
    if not isinstance(value, str):
        raise InvalidRequestError.for_field(
            field, value, "is not a string; an https:// URL is needed"
        )
    if _ORDINARY_URL.fullmatch(value) is None and (fault := _url_fault(value)):
        raise InvalidRequestError.for_field(field, value, fault)
    return value


def _url_fault(url: str) -> str | None:
    if _NOT_IN_URL.search(url):
        return "has characters in it that no URL has, e.g. white space; percent-encode them"
    parts = _URL_PARTS.fullmatch(url)
    if parts is None or parts["scheme"].lower() != "https":
        return "is not an https:// URL"
    if parts["user"]:
        return "has a user name in it; the service can only fetch what is public"
    after = _AFTER_HOST.fullmatch(parts["rest"])
    if after is None or not 0 < int(after["port"] or 443) <= _LAST_PORT:
        return "has a malformed port"
    return _host_fault(parts["host"])


def _host_fault(host: str) -> str | None:
    # As a resolver would read it: letters and dots have wide and circled twins.
    host = unicodedata.normalize("NFKC", host).replace("\u3002", ".").lower()
    labels = host.removesuffix(".").split(".")
    if host.startswith("[") or labels[-1][:1].isdigit():
        return _address_fault(host)
    if "" in labels or _NOT_IN_HOST.search(host):
        return "has no valid host"
    if labels[-1] in _LOCAL_NAMES or len(labels) == 1:
        return _IS_LOCAL
    return None


def _address_fault(host: str) -> str | None:
    bracketed = host.startswith("[") and host.endswith("]") and "%" not in host
    try:
        address = ipaddress.IPv6Address(host[1:-1]) if bracketed else ipaddress.IPv4Address(host)
    except ValueError:
        return "has a malformed IP address as its host"
    return None if _is_public(address) else _IS_LOCAL


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
    """Check that this can be a swap's id: one segment of a path.

    Args:
        value: What was given.

    Returns:
        The id.

    Raises:
        InvalidRequestError: It is no string, is empty, or holds what no id holds.
    """
    if not isinstance(value, str) or not _SWAP_ID.fullmatch(value):
        fault = "is not the id of a swap, e.g. 'tsk_1a2b' (letters, digits, . _ ~ -)"
        raise InvalidRequestError.for_field("swap_id", value, fault)
    return value


def page_limit(value: object) -> int:
    """Check the size of a page.

    Args:
        value: What was given.

    Returns:
        The size.

    Raises:
        InvalidRequestError: It is not a whole number from 1 to 100.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_PAGE_SIZE:
        raise InvalidRequestError.for_field(
            "limit", value, f"is not a whole number from 1 to {MAX_PAGE_SIZE}"
        )
    return value


def cursor(value: object) -> str:
    """Check that this can be a cursor: it is opaque, but never empty.

    Args:
        value: What was given.

    Returns:
        The cursor.

    Raises:
        InvalidRequestError: It is no string or is empty.
    """
    if not isinstance(value, str) or not value or not _is_unicode(value):
        raise InvalidRequestError.for_field("cursor", value, "is not the next_cursor of a page")
    return value


def idempotency_key(value: object) -> str:
    """Check that a caller's own key can be sent as a header.

    Args:
        value: What was given.

    Returns:
        The key.

    Raises:
        InvalidRequestError: It is no string, is empty, or holds spaces or non-ASCII.
    """
    if not isinstance(value, str) or not _VISIBLE.fullmatch(value):
        fault = "is not a string of visible ASCII without spaces, e.g. str(uuid.uuid4())"
        raise InvalidRequestError.for_field("idempotency_key", value, fault)
    return value


def method(value: object) -> str:
    """Check an HTTP method.

    Args:
        value: What was given.

    Returns:
        The method in upper case.

    Raises:
        InvalidRequestError: It is no word.
    """
    if not isinstance(value, str) or not _METHOD.fullmatch(value):
        raise InvalidRequestError.for_field("method", value, "is no HTTP method, e.g. 'GET'")
    return value.upper()


def path(value: object) -> str:
    """Check that a path stays below the base URL: that is as far as the key may go.

    Args:
        value: What was given.

    Returns:
        The path, percent-encoded where it was not.

    Raises:
        InvalidRequestError: It is no path, would lead elsewhere, or holds a query.
    """
    if not isinstance(value, str) or not value.startswith("/") or value.startswith("//"):
        raise InvalidRequestError.for_field(
            "path", value, "does not start with one slash, e.g. '/me'"
        )
    if _NOT_IN_PATH.search(value):
        fault = "holds a query, a fragment, a backslash or white space; use params for a query"
        raise InvalidRequestError.for_field("path", value, fault)
    # As a proxy may read it that decodes first and resolves dots then.
    decoded = unquote(value).replace("\\", "/")
    if any(segment in {".", ".."} for segment in decoded.split("/")):
        raise InvalidRequestError.for_field(
            "path", value, "holds a dot segment and would leave base_url"
        )
    return quote(value, safe="/%:@!$&'()*+,;=~")


def query(params: Mapping[str, object]) -> str:
    """Write query parameters.

    Args:
        params: Names and their values: text, numbers, True or False.

    Returns:
        ``?name=value&…``, percent-encoded; empty without parameters.

    Raises:
        InvalidRequestError: A name is no text, or a value is of another type or not finite.
    """
    written = {_query_name(name): _query_text(name, value) for name, value in params.items()}
    return f"?{urlencode(written)}" if written else ""


def _query_name(name: object) -> str:
    if not isinstance(name, str) or not _is_unicode(name):
        raise InvalidRequestError.for_field("params", name, "is no name of a parameter")
    return name


def _query_text(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and _is_unicode(value):
        return str(value)
    if isinstance(value, int | float) and -_LARGEST <= value <= _LARGEST:
        return str(value)
    raise InvalidRequestError.for_field(
        f"params[{name!r}]", value, "is neither text nor a finite number"
    )


def headers(values: Mapping[str, object]) -> dict[str, str]:
    """Check a caller's own headers.

    Args:
        values: Names and values.

    Returns:
        A copy.

    Raises:
        InvalidRequestError: A name is none or belongs to the client, or a value is not one
            line of ASCII.
    """
    checked: dict[str, str] = {}
    for name, value in values.items():
        if not _is_header_name(name):
            raise InvalidRequestError.for_field("headers", name, "is no header name")
        if name.lower() in _RESERVED_HEADERS:
            raise InvalidRequestError.for_field("headers", name, "is set by the client alone")
        if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
            raise InvalidRequestError.for_field(
                f"headers[{name!r}]", value, "is not one line of ASCII"
            )
        # In one spelling, so that it takes the place of the client's own and not one beside it.
        checked[name.title()] = value
    return checked


def content(value: object) -> bytes:
    """Check a caller's own body: bytes, which nobody can change between two attempts.

    Args:
        value: What was given.

    Returns:
        The bytes.

    Raises:
        InvalidRequestError: It is anything else.
    """
    if not isinstance(value, bytes):
        raise InvalidRequestError.for_field("content", value, "is not bytes")
    return value


def _is_header_name(name: object) -> bool:
    return isinstance(name, str) and _HEADER_NAME.fullmatch(name) is not None


def api_key(value: object) -> str:
    """Check that this can be sent as a key. Its value appears in no message.

    Args:
        value: What was given.

    Returns:
        The key.

    Raises:
        ConfigurationError: It is missing, or holds what no header can carry.
    """
    if value is None or value == "":
        raise ConfigurationError(
            f"api_key: there is none; set {API_KEY_VARIABLE} or pass api_key=… "
            "(to try the package without a key: aifaceswap --emulator me)",
            field="api_key",
        )
    if not isinstance(value, str):
        raise ConfigurationError(
            f"api_key: a string is needed, not {type(value).__name__}", field="api_key"
        )
    if bad := re.search(r"[^\x21-\x7e]", value):
        raise ConfigurationError(
            f"api_key: the character at position {bad.start()} is white space, a control "
            "character or not ASCII; copy the key again, without quotes or line breaks",
            field="api_key",
        )
    return value


def base_url(value: object) -> str:
    """Check that the key may go there: https, or plain http to this machine.

    Args:
        value: What was given.

    Returns:
        The URL without a slash at its end.

    Raises:
        ConfigurationError: It is no such URL.
    """
    fault = _base_url_fault(value) if isinstance(value, str) else "is not a string"
    if fault:
        # A password in it must not be shown.
        given = "the given URL" if "@" in str(value) else short_repr(value)
        text = f"base_url: {given} {fault}; e.g. {DEFAULT_BASE_URL!r}"
        raise ConfigurationError(text, field="base_url")
    return str(value).rstrip("/")


def _base_url_fault(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        return f"is malformed ({error})"
    if not host or _NOT_IN_URL.search(url) or "\\" in url:
        return "is not an absolute URL"
    if "?" in url or "#" in url or "@" in url:
        return "holds a query, a fragment or a user name"
    if parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host)):
        return None
    return "is not https (plain http is for this machine alone)"


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
    text = f"{field} must be a number of seconds above {at_least:g}; got {short_repr(value)}"
    raise error(text, field=field)


def max_wait(value: object) -> float:
    """Check how long a call may wait for rate limits: seconds, 0 or more; infinite: no maximum."""
    if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0:
        # An integer that no float can hold is longer than any deadline.
        return float(value) if value <= _LARGEST else math.inf
    text = f"max_wait must be a number of seconds, 0 or more; got {short_repr(value)}"
    raise ConfigurationError(text, field="max_wait")


def non_negative_integer(field: str, value: object) -> int:
    """Check a whole number of 0 or more."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    text = f"{field} must be a whole number, 0 or more; got {short_repr(value)}"
    raise ConfigurationError(text, field=field)


def positive_integer(
    field: str,
    value: object,
    error: type[ConfigurationError | InvalidRequestError] = ConfigurationError,
) -> int:
    """Check a whole number from 1 up; raise `error` for anything else."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise error(f"{field} must be a whole number from 1 up; got {short_repr(value)}", field=field)


def budget(value: B) -> B:
    """Check that this can serve as a `RequestBudget`; None is no budget."""
    if value is None or (hasattr(value, "acquire") and hasattr(value, "penalize")):
        return value
    text = f"budget must be a Budget, 'shared' or None; got {short_repr(value)}"
    raise ConfigurationError(text, field="budget")


def proxy(value: object) -> str:
    """Check the URL of a proxy; it may hold a password and appears in no message.

    Args:
        value: What was given.

    Returns:
        The URL.

    Raises:
        ConfigurationError: It is no http:// or https:// URL.
    """
    if not isinstance(value, str) or not _is_proxy_url(value):
        text = "proxy: this is no URL like 'http://proxy.example:3128'"
        raise ConfigurationError(text, field="proxy")
    return value


def _is_proxy_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(host) and port != 0
