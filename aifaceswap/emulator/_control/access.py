"""Who may steer the emulator: programs, and pages of its own; no page of somebody else."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aifaceswap.emulator._service.errors import Problem, Refused
from aifaceswap.emulator._validators import is_loopback

if TYPE_CHECKING:
    from aifaceswap.emulator._service.messages import ServerRequest


def refuse_strangers(request: ServerRequest, bound_to: str) -> None:
    """Refuse what a browser sends on behalf of another page.

    A page elsewhere can send requests to loopback (its `Origin` or `Sec-Fetch-Site` gives it
    away), and can have its own name resolved to loopback (then that name is in `Host`).

    Raises:
        Refused: It is such a request.
    """
    host = request.headers.get("Host", "")
    if not _is_ours(host, bound_to):
        raise _forbidden("Host", host)
    origin = request.headers.get("Origin")
    if origin is not None and origin.lower() != f"http://{host.lower()}":
        raise _forbidden("Origin", origin)
    site = request.headers.get("Sec-Fetch-Site", "none")
    if site not in {"none", "same-origin"}:
        raise _forbidden("Sec-Fetch-Site", site)


def _forbidden(name: str, value: str) -> Refused:
    message = f"{name}: {value[:100]!r} is not of this emulator; nobody else may steer it."
    return Refused(Problem(403, "forbidden", message))


def _is_ours(host: str, bound_to: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if is_loopback(name) or is_loopback(bound_to):
        return is_loopback(name)
    # A name without a dot, such as a container's, and an address cannot be a stranger's.
    return name == bound_to.lower() or (bool(name) and "." not in name) or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
