"""
The proxy on the way to the parent, where this machine's settings name one.

HTTPS_PROXY, HTTP_PROXY and NO_PROXY are heeded as AWS's library heeds them for KMS and STS. A
proxy sees what the network sees: addresses, sizes, times, and what is sealed.
"""

from ipaddress import ip_address
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3
from urllib3.exceptions import LocationValueError

from app.protocol.errors import ConfigError


def find_proxy(url: str) -> str | None:
    """Give the URL of the proxy that leads to *url*, None where there is none, or none may."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if host == "localhost" or _is_loopback(host) or proxy_bypass(host):
        return None
    return getproxies().get(parts.scheme)


def describe_proxy(proxy: str) -> str:
    """Give *proxy* for people, without the name and password that its URL may hold."""
    return f"the proxy {urlsplit(proxy).netloc.rpartition('@')[2]}"


def make_pool(proxy: str | None, **settings: object) -> urllib3.PoolManager:
    """
    Give urllib3's pools, through *proxy* where there is one.

    Raises:
        ConfigError: The proxy's URL is none.
    """
    if proxy is None:
        return urllib3.PoolManager(**settings)  # type: ignore[arg-type]  # as its caller has them
    user, _, password = urlsplit(proxy).netloc.rpartition("@")[0].partition(":")
    login = f"{unquote(user)}:{unquote(password)}" if user else None
    try:
        return urllib3.ProxyManager(
            proxy,
            proxy_headers=urllib3.make_headers(proxy_basic_auth=login),
            **settings,  # type: ignore[arg-type]  # as its caller has them
        )
    except LocationValueError:
        raise ConfigError(
            f"{describe_proxy(proxy)} cannot be used: HTTPS_PROXY and HTTP_PROXY need a URL with "
            "http:// or https://"
        ) from None


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
