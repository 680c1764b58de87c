"""Ports of this machine that an instance may answer on."""

from __future__ import annotations

import errno
import ipaddress
import socket

from vaultcube.errors import PortTakenError, UsageError

# Where vLLM itself answers, and how far to look from there.
FIRST, TRIED = 8000, 100


def check_host(host: str) -> bool:
    """Say whether an address can be reached from this machine alone.

    Raises:
        UsageError: it is none.
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError as error:
        raise UsageError(
            f"--host {host!r} is no IP address", next_step="Use 127.0.0.1, 0.0.0.0 for everybody, or one of its own."
        ) from error


def choose_port(host: str, asked: int | None) -> int:
    """Return the port that was asked for, if nobody listens there, else the first free one from 8000 on.

    Raises:
        PortTakenError: it is taken, or all that were tried are.
        UsageError: the address is not this machine's.
    """
    if asked is not None:
        if not _free(host, asked):
            raise PortTakenError(f"port {asked} of {host} is taken")
        return asked
    for port in range(FIRST, FIRST + TRIED):
        if _free(host, port):
            return port
    raise PortTakenError(f"all ports of {host} from {FIRST} to {FIRST + TRIED - 1} are taken")


def _free(host: str, port: int) -> bool:
    """Say whether nobody listens there, on that address or on all."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as one:
        # What ended a moment ago does not count as listening.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((host, port))
        except PermissionError:
            # The engine may bind what we may not; it will say so itself.
            return True
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise UsageError(f"--host {host} is no address of this machine") from error
            return False
    return True
