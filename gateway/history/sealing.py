"""Thoughts that a client keeps: encrypted and authenticated, for one owner and for a time.

AES-256-GCM (NIST SP 800-38D) with a random nonce of 96 bits. The owner and the moment of the
sealing are authenticated with the text, so that what was sealed for one owner opens for no other.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from collections.abc import Sequence
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gateway.schemas.errors import InvalidRequest

KEY_BYTES = 32
_FORM = b"\x01"  # of what is sealed; another one gets another number
_KEY_ID_BYTES = 4
_TIME_BYTES = 8
_NONCE_BYTES = 12
_HEAD_BYTES = len(_FORM) + _KEY_ID_BYTES + _TIME_BYTES


def key_of(secret: str) -> bytes:
    """The key that a secret of at least 32 characters stands for."""
    return hashlib.sha256(b"pascal-serve reasoning\0" + secret.encode()).digest()


class Sealer:
    """Seals texts for clients to keep, and opens them again.

    :param keys: of `KEY_BYTES`; the first one seals, and all of them open.
    :param longest_s: age above which a text is not opened; 0: any age.
    """

    def __init__(self, keys: Sequence[bytes], longest_s: float) -> None:
        self._ciphers = {hashlib.sha256(key).digest()[:_KEY_ID_BYTES]: AESGCM(key) for key in keys}
        self._sealing_id = next(iter(self._ciphers))
        self._longest_s = longest_s

    def seal(self, text: str, owner: str, now: float) -> str:
        """Encrypt a text. ``now`` is Unix time."""
        head = _FORM + self._sealing_id + int(now).to_bytes(_TIME_BYTES, "big")
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = self._ciphers[self._sealing_id].encrypt(
            nonce, text.encode("utf-8", "surrogatepass"), head + owner.encode()
        )
        return base64.urlsafe_b64encode(head + nonce + sealed).decode()

    def open(self, sealed: str, owner: str, now: float, where: str) -> str:
        """Decrypt what `seal` made. ``now`` is Unix time.

        :param where: path of the field, for errors.
        :raises InvalidRequest: it was changed, belongs to another owner or server, or is too old.
        """
        try:
            data = base64.b64decode(sealed, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise _refused(where) from None
        head, rest = data[:_HEAD_BYTES], data[_HEAD_BYTES:]
        cipher = self._ciphers.get(head[len(_FORM) : len(_FORM) + _KEY_ID_BYTES])
        if not head.startswith(_FORM) or cipher is None or len(rest) < _NONCE_BYTES:
            raise _refused(where)
        nonce, body = rest[:_NONCE_BYTES], rest[_NONCE_BYTES:]
        try:
            text = cipher.decrypt(nonce, body, head + owner.encode())
        except InvalidTag:
            raise _refused(where) from None
        sealed_at = int.from_bytes(head[-_TIME_BYTES:], "big")
        if self._longest_s and now - sealed_at > self._longest_s:
            raise InvalidRequest(
                "The encrypted thoughts are too old. Send the items without them.",
                param=where,
                code="encrypted_content_expired",
            )
        return text.decode("utf-8", "surrogatepass")


def is_sealed(value: Any) -> bool:
    """Whether an input item holds thoughts that a server has encrypted."""
    return (
        isinstance(value, dict)
        and value.get("type") == "reasoning"
        and value.get("encrypted_content") is not None
    )


def opened(
    items: list[Any], owner: str, sealer: Sealer, now: float, name: str = "input"
) -> list[Any]:
    """The input items, with thoughts in the clear instead of encrypted ones.

    :param name: of the field that has the items.
    :raises InvalidRequest: naming the field; see `Sealer.open`.
    """
    found = list(items)
    for index, item in enumerate(items):
        if is_sealed(item):
            where = f"{name}[{index}].encrypted_content"
            sealed = item["encrypted_content"]
            if not isinstance(sealed, str):
                raise InvalidRequest("Encrypted content is a text.", param=where)
            text = sealer.open(sealed, owner, now, where)
            found[index] = {**item, "content": [{"type": "reasoning_text", "text": text}]}
    return found


def _refused(where: str) -> InvalidRequest:
    return InvalidRequest(
        "The encrypted thoughts cannot be opened: they were changed, or another server or another "
        "API key made them. Send the items without them.",
        param=where,
        code="invalid_encrypted_content",
    )
