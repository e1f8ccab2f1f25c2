"""Decompresses request bodies (RFC 9110, section 8.4.1) up to a bound.

A body of a megabyte can decompress to a gigabyte, so decompression stops at the bound.
"""

from __future__ import annotations

import zlib

from gateway.schemas.errors import CONTENT_ENCODINGS, InvalidRequest, TooLarge, UnsupportedEncoding

_GZIP_BITS = 16 + zlib.MAX_WBITS


def check_encoding(encoding: str) -> None:
    """Raise `UnsupportedEncoding` for a ``Content-Encoding`` that `decompressed` does not know."""
    if encoding not in ("", "identity", *CONTENT_ENCODINGS):
        raise UnsupportedEncoding(encoding)


def decompressed(data: bytes, encoding: str, bound: int) -> bytes:
    """Decompress a body.

    :param encoding: one that `check_encoding` accepts.
    :param bound: most bytes of the result.
    :raises TooLarge: the result would be longer.
    :raises InvalidRequest: the data is not of this encoding, or not complete.
    """
    if encoding in ("", "identity"):
        return data
    result = bytearray()
    while data:
        inflater = zlib.decompressobj(_bits(encoding, data))
        try:
            result += inflater.decompress(data, bound + 1 - len(result))
        except zlib.error as error:
            raise InvalidRequest(f"The body is not {encoding}.", param=None) from error
        if len(result) > bound:
            raise TooLarge(len(result), bound)
        if not inflater.eof:
            raise InvalidRequest(f"The body is not complete as {encoding}.", param=None)
        data = inflater.unused_data  # gzip may have several members (RFC 1952, section 2.2)
    return bytes(result)


def _bits(encoding: str, data: bytes) -> int:
    if encoding == "gzip":
        return _GZIP_BITS
    # "deflate" means zlib's format; some clients send the bare compressed data.
    return zlib.MAX_WBITS if data[0] & 0x0F == zlib.DEFLATED else -zlib.MAX_WBITS
