"""Which network addresses may be called on somebody's behalf: none of this machine, its network or its provider."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, IPv6Address, ip_address

Resolve = Callable[[str, int], Awaitable[list[str]]]
"""The addresses of a host and port."""
_MAPPED_BYTES = 4
_NAT64 = b"\x00\x64\xff\x9b" + bytes(8)


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, as the system finds them. Raises OSError where it has none."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


def is_public(address: str) -> bool:
    """Whether an address is anybody's on the internet, and not one inside.

    An IPv6 address that stands for an IPv4 address (mapped, 6to4, NAT64) is judged by that.

    Example:
        >>> [is_public(each) for each in ("93.184.216.34", "10.0.0.1", "169.254.169.254", "::ffff:127.0.0.1")]
        [True, False, False, False]
    """
    found: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        if inner is None and found.packed.startswith(_NAT64):
            inner = IPv4Address(found.packed[-_MAPPED_BYTES:])
        if inner is not None:
            return is_public(str(inner))
    return found.is_global and not found.is_multicast
