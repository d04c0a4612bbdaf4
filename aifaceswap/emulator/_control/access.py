"""Who may use the emulator: programs and its own pages, but no page of someone else."""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, Final

from aifaceswap.emulator._service.errors import Problem, Rejected
from aifaceswap.emulator._validators import is_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping

_HOST: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]*)?")


def check_host(host: str, bound_to: str) -> None:
    """Raise `Rejected` if the `Host` is another site's name, which resolves to this machine."""
    match = _HOST.fullmatch(host)
    if match is None or not _is_ours((match[1] or match[2]).lower(), bound_to.lower()):
        raise _forbidden("Host", host)


def reject_strangers(headers: Mapping[str, str], bound_to: str) -> None:
    """Raise `Rejected` for what a browser sends on behalf of another page.

    Such a page can send requests to loopback: its `Origin` or `Sec-Fetch-Site` shows it. Or it can
    have its own name resolved to loopback: then that name is in `Host`.
    """
    host = headers.get("Host", "")
    check_host(host, bound_to)
    origin = headers.get("Origin")
    if origin is not None and origin.lower() != f"http://{host.lower()}":
        raise _forbidden("Origin", origin)
    site = headers.get("Sec-Fetch-Site", "none")
    if site not in {"none", "same-origin"}:
        raise _forbidden("Sec-Fetch-Site", site)


def _forbidden(name: str, value: str) -> Rejected:
    message = f"{name}: {value[:100]!r} does not belong to this emulator."
    return Rejected(Problem(403, "forbidden", message))


def _is_ours(name: str, bound_to: str) -> bool:
    if is_loopback(name) or is_loopback(bound_to):
        return is_loopback(name)
    # A name without a dot, such as a container's, and an address cannot be another site's.
    return name == bound_to or "." not in name or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
