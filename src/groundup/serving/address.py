"""Where a server listens, and the names it is called by. Needs no package of the extra `serve`."""

import ipaddress
import os
import re
import socket

from groundup.config.errors import UsageError, UserError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
EVERYWHERE = ("0.0.0.0", "::")
"""All addresses of the machine, as in a container."""
KEY_LENGTH = 1000
"""Of a key, at most: it is sent in the head of a request."""


def check_key(key: str | None, host: str) -> None:
    """Check what clients must send to a server at an address.

    Raises:
        UsageError: Nobody could send it, or there is none and the address can be reached by others.
    """
    if key is not None and not re.fullmatch(f"[!-~]{{1,{KEY_LENGTH}}}", key):
        raise UsageError(
            f"the API key must be 1 to {KEY_LENGTH:,} letters, digits and signs of ASCII, without spaces and line ends:"
            " no client could send it"
        )
    if _canonical(host) not in LOOPBACK and not key:
        raise UsageError(f"host {host} can be reached by others: give them a key with --api-key or GROUNDUP_API_KEY")


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Args:
        host: An address of this machine.
        port: 0 takes a free one.

    Raises:
        UserError: The port is taken, or the address is not of this machine.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # Of a name that is unknown this says so; what comes next has only a number to say.
        socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
        listener = socket.create_server((host, port), family=family, backlog=128)
    except (OSError, TypeError, ValueError) as error:  # names that cannot be names are no OSError
        name = (host or "''") if len(host) < 100 else f"{host[:60]}..."
        if not isinstance(error, OSError) or isinstance(error, socket.gaierror):
            raise UserError(
                f"no address is known for {name}; --host takes one of this machine, such as 127.0.0.1"
            ) from None
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise UserError(
            f"cannot listen on {name} port {port}: {reason}; take another with --port, or --port 0"
        ) from None
    listener.set_inheritable(True)
    return listener


def url_of(host: str, port: int) -> str:
    """What a browser on this machine is given."""
    return f"http://{'localhost' if _canonical(host) in EVERYWHERE else _in_url(host)}:{port}/"


def names_of(host: str, port: int) -> frozenset[str] | None:
    """The values of Host that are ours; None where they cannot be known: names of this machine, mapped ports."""
    known = _canonical(host)  # the form that a browser sends, whatever was typed
    if known in EVERYWHERE:
        return None
    names = frozenset(map(_in_url, LOOPBACK if known in LOOPBACK else (host.lower(), known)))
    return frozenset(f"{name}:{port}" for name in names) | (names if port == 80 else frozenset())


def _canonical(host: str) -> str:
    """The short form of an address, without the card of the network that it belongs to; a name in small letters."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).compressed
    except ValueError:
        return host.lower()


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
