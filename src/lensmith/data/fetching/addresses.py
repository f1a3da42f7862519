"""Requests to public addresses alone: an address list is written by others, and may name what only this machine sees.

A host's name is resolved here, every address that it has must be public, and the connection is made to that address and
not to the name again, so that a name server that answers otherwise the second time changes nothing. Redirects come by
here too, as each is a request of its own. Proxies are not used: they would resolve the name themselves.
"""

import ipaddress
import socket
from collections.abc import Sequence

import httpx

from lensmith.core.errors import InputError

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


class NotPublicError(InputError):
    """An address that is not asked: it is none of the web's, or not public."""


def is_public(address: IpAddress) -> bool:
    """Whether an address is one of the internet's, also where another is written in it (IPv4 in IPv6)."""
    if isinstance(address, ipaddress.IPv6Address):
        within = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
        if address in _NAT64:
            within.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if any(inner is not None and not is_public(inner) for inner in within):
            return False
        if address.ipv4_mapped is not None:
            return True
    return address.is_global and not address.is_multicast


class PublicTransport(httpx.BaseTransport):
    """Sends each request to an address of its host that was checked. `allow_private`: without the check, for tests.

    Raises NotPublicError where a host has an address that is not public, httpx.ConnectError where it has none. Made
    without kept connections: one to an address belongs to the host that it was made for.
    """

    def __init__(self, *, allow_private: bool = False) -> None:
        self._allow_private = allow_private
        self._inner = httpx.HTTPTransport(
            trust_env=False, limits=httpx.Limits(max_connections=None, max_keepalive_connections=0)
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.scheme not in ("http", "https"):  # as a redirect may say
            raise httpx.UnsupportedProtocol(f"{request.url.scheme} is not asked")
        host = request.url.raw_host.decode("ascii")
        addresses = self._addresses(host, request.url.port or (443 if request.url.scheme == "https" else 80))
        failure: httpx.TransportError | None = None
        for address in addresses:
            checked = httpx.Request(
                request.method,
                request.url.copy_with(host=str(address)),
                headers=request.headers,  # with the host's name, which httpx has put there
                extensions={**request.extensions, "sni_hostname": host},
            )
            try:
                return self._inner.handle_request(checked)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error
        raise failure or httpx.ConnectError(f"{host} has no address")

    def close(self) -> None:
        self._inner.close()

    def _addresses(self, host: str, port: int) -> Sequence[IpAddress]:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpx.ConnectError(f"{host}: {error}") from error
        # A scope (fe80::1%eth0) names an interface of this machine.
        names = dict.fromkeys(str(answer[4][0]) for answer in found)
        addresses = [ipaddress.ip_address(name.partition("%")[0]) for name in names]
        if not self._allow_private and (private := [each for each in addresses if not is_public(each)]):
            raise NotPublicError("the host is not public", actual=f"{host} is {private[0]}")
        return addresses
