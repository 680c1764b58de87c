"""Which keys an armoured OpenPGP file holds: read here, so that neither the target nor this machine needs GnuPG."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterator

try:
    from ansible.errors import AnsibleFilterError
except ImportError:  # the tests of the parser need no Ansible
    AnsibleFilterError = ValueError  # type: ignore[assignment, misc]

_ARMOUR = re.compile(r"-----BEGIN PGP PUBLIC KEY BLOCK-----\r?\n(.*?)-----END PGP PUBLIC KEY BLOCK-----", re.DOTALL)
_HEADER = re.compile(r"\S+: ")
_PUBLIC_KEY, _VERSION_4 = 6, 4
# How a packet tells its length (RFC 9580, section 4.2): below these first octets in one and in two octets, at the last in four.
_ONE_OCTET, _TWO_OCTETS, _FOUR_OCTETS = 192, 224, 255
_NO_LENGTH = 3


def _length(data: bytes, at: int) -> tuple[int, int, int]:
    """Return tag, size of the body and where it begins, of the packet at `at`."""
    head = data[at]
    if not head & 0x80:
        raise ValueError("not an OpenPGP packet")
    if not head & 0x40:
        if head & 3 == _NO_LENGTH:
            raise ValueError("a packet of unknown length")
        width = 1 << (head & 3)
        return (head >> 2) & 0x0F, int.from_bytes(data[at + 1 : at + 1 + width], "big"), at + 1 + width
    tag, first = head & 0x3F, data[at + 1]
    if first < _ONE_OCTET:
        return tag, first, at + 2
    if first < _TWO_OCTETS:
        return tag, ((first - _ONE_OCTET) << 8) + data[at + 2] + _ONE_OCTET, at + 3
    if first == _FOUR_OCTETS:
        return tag, int.from_bytes(data[at + 2 : at + 6], "big"), at + 6
    raise ValueError("a packet of unknown length")


def _packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and body of each packet."""
    at = 0
    while at < len(data):
        tag, size, begin = _length(data, at)
        at = begin + size
        if at > len(data):
            raise ValueError("a packet that is cut off")
        yield tag, data[begin:at]


def _decode(block: str) -> bytes:
    """Return the bytes of an armoured block: without header lines and without the checksum, which begins with `=`."""
    lines = [line.strip() for line in block.splitlines()]
    return base64.b64decode("".join(x for x in lines if not _HEADER.match(x) and not x.startswith("=")), validate=True)


def _primary_keys(block: str) -> Iterator[bytes]:
    """Yield the bodies of a block's public key packets; subkeys are another kind."""
    for tag, body in _packets(_decode(block)):
        if tag == _PUBLIC_KEY:
            if body[0] != _VERSION_4:
                raise ValueError("a key that is not of version 4")
            yield body


def openpgp_fingerprints(text: str) -> list[str]:
    """Return the fingerprints (40 upper-case hex digits) of the primary keys in an armoured file, in its order.

    Raises:
        AnsibleFilterError: there is no key block in it, or one that cannot be read.
    """
    blocks = _ARMOUR.findall(text)
    if not blocks:
        raise AnsibleFilterError("no armoured OpenPGP public key in this file")
    try:
        keys = [key for block in blocks for key in _primary_keys(block)]
    except (ValueError, IndexError) as error:
        raise AnsibleFilterError(f"an OpenPGP key block that cannot be read: {error}") from error
    framed = (b"\x99" + len(key).to_bytes(2, "big") + key for key in keys)
    return [hashlib.sha1(key, usedforsecurity=False).hexdigest().upper() for key in framed]


class FilterModule:
    """Ansible looks for this name."""

    def filters(self) -> dict[str, Callable[[str], list[str]]]:
        """Name the filters of this file."""
        return {"openpgp_fingerprints": openpgp_fingerprints}
