"""Which proxy a request goes through: a given one, or that of the environment."""

from __future__ import annotations

import ipaddress
from urllib.request import getproxies_environment

import attrs
from yarl import URL

from aifaceswap import _validation
from aifaceswap._validation import Proxy, Secret

_ENVIRONMENT = Secret("environment")


@attrs.frozen
class Proxies:
    """A proxy, and the hosts that are reached without it: entries like those of NO_PROXY."""

    proxy: Proxy | None = None
    exceptions: tuple[str, ...] = ()

    @classmethod
    def of(cls, given: Secret | None) -> Proxies:
        """The proxy of a URL; for ``"environment"`` that of ``HTTPS_PROXY`` or ``ALL_PROXY``."""
        if given is None:
            return cls()
        if given != _ENVIRONMENT:
            return cls(_validation.proxy(given))
        variables = getproxies_environment()
        url = Secret(variables.get("https") or variables.get("all") or "")
        exceptions = tuple(variables.get("no", "").lower().replace(" ", "").split(","))
        del variables
        if not url.reveal():
            return cls()
        if "://" not in url.reveal():
            url = Secret(f"http://{url.reveal()}")
        return cls(_validation.proxy(url), exceptions)

    def proxy_for(self, url: URL) -> str | None:
        """The URL of the proxy for this request; None: it is sent without one."""
        # Plain http is for loopback addresses alone; a proxy would see the key in clear.
        if self.proxy is None or url.scheme != "https":
            return None
        host = (url.host or "").lower()
        if any(_matches(entry, host, url.port) for entry in self.exceptions):
            return None
        return self.proxy.url


def _matches(entry: str, host: str, port: int | None) -> bool:
    """Whether an entry of NO_PROXY names a host: ``*``, a name, an address, a network."""
    if entry == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        pass
    name = entry.removesuffix(f":{port}").removeprefix("*").removeprefix(".").strip("[]")
    return bool(name) and (host == name or host.endswith(f".{name}"))
