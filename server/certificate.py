"""The names a certificate is for: bytes in, names out.

They are the subject alternative names (RFC 5280 4.2.1.6) of the first certificate of a PEM file,
read from its DER form (X.690). What holds: a file that is no certificate has no names, and nothing
raises.
"""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections.abc import Iterator
from pathlib import Path

_FIRST = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_OID, _OCTETS, _EXTENSIONS = 0x06, 0x04, 0xA3
_ALT_NAME = bytes((0x55, 0x1D, 0x11))  # 2.5.29.17
_DNS_NAME, _IP_ADDRESS = 0x82, 0x87


def names_of(path: Path) -> tuple[str, ...]:
    """The host names and addresses (IPv6 in brackets, as in a Host header) of the certificate in
    this file. A name with a wildcard stands for no host, and is left out."""
    try:
        found = _FIRST.search(path.read_text("ascii", "replace"))
        der = ssl.PEM_cert_to_DER_cert(found[0]) if found else b""
        return tuple(dict.fromkeys(_names(der)))
    except (OSError, ValueError, IndexError):
        return ()


def _names(der: bytes) -> Iterator[str]:
    for _, certificate in _elements(der):
        _, signed = next(_elements(certificate), (0, b""))
        for tag, extensions in _elements(signed):
            if tag == _EXTENSIONS:
                for _, listed in _elements(extensions):
                    for _, extension in _elements(listed):
                        yield from _alternative_names(list(_elements(extension)))


def _alternative_names(extension: list[tuple[int, bytes]]) -> Iterator[str]:
    if not extension or extension[0] != (_OID, _ALT_NAME) or extension[-1][0] != _OCTETS:
        return
    for _, names in _elements(extension[-1][1]):
        for tag, name in _elements(names):
            if tag == _DNS_NAME and b"*" not in name:
                yield name.decode("ascii").lower()
            elif tag == _IP_ADDRESS:
                address = ipaddress.ip_address(name)
                yield f"[{address}]" if address.version == 6 else str(address)


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """The tag and the content of each element. ValueError when one is longer than what is there."""
    at = 0
    while at < len(der):
        tag, length = der[at], der[at + 1]
        at += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(der[at : at + size], "big")
            at += size
        if at + length > len(der):
            raise ValueError("an element is cut off")
        yield tag, der[at : at + length]
        at += length
