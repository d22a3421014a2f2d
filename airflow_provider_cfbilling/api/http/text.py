"""What a server says, made safe to be logged, kept and shown: one printable line, and none of our secrets."""

import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Collection, Iterator
from typing import Any

HIDDEN = "***"
_MAX_LENGTH = 300
# A shorter one is part of ordinary words and ids. Cloudflare's have 37 characters and more.
_MIN_SECRET_LENGTH = 8
# Stripe's, such as pi_3Nx_secret_9Kb: with it a payment can be completed by anyone who has it.
_STRIPES = r"\b\w{1,200}?_secret_\w+"


def one_line(text: str, longest: int = _MAX_LENGTH) -> str:
    """Return a stranger's text as one line that can be printed, cut off if it is too long."""
    return "".join(c if c.isprintable() else " " for c in text[:longest]).strip()


class Redactor:
    """Hides secrets in what a server says, which may be what it was sent.

    Found as they are, percent-encoded and in base64; Stripe's client secrets by their form.

    :param in_messages: more secrets, hidden in messages only, however short they are. A short one in an
        id or a status would spoil what the text says.
    """

    def __init__(self, *secrets: str, in_messages: Collection[str] = ()) -> None:
        forms = [form for secret in secrets if len(secret) >= _MIN_SECRET_LENGTH for form in _forms(secret)]
        self._pattern = re.compile("|".join([*forms, _STRIPES]))
        more = [_spelled(secret) for secret in sorted(in_messages, key=len, reverse=True)]
        self._message_pattern = re.compile("|".join([*forms, _STRIPES, *more]))

    def redacted(self, text: str) -> str:
        return self._pattern.sub(HIDDEN, text)

    def redacted_message(self, text: str) -> str:
        """Redact what is shown and never read again."""
        return self._message_pattern.sub(HIDDEN, text)

    def redacted_json(self, value: Any) -> Any:
        """Return a JSON value whose every text is redacted. Names of fields are never shown: they stay."""
        if isinstance(value, str):
            return self.redacted(value)
        if isinstance(value, list):
            return [self.redacted_json(item) for item in value]
        if isinstance(value, dict):
            return {name: self.redacted_json(item) for name, item in value.items()}
        return value


def _forms(secret: str) -> Iterator[str]:
    """Yield patterns of the forms that a secret may take."""
    yield _spelled(secret)
    # In base64 three bytes are four characters, so its form depends on how many stand before it;
    # the characters at its ends are made of its neighbours too.
    for before, begin in ((0, 0), (1, 2), (2, 3)):
        data = b" " * before + secret.encode()
        for encode in (b64encode, urlsafe_b64encode):
            yield re.escape(encode(data).decode()[begin : len(data) * 8 // 6])


def _spelled(secret: str) -> str:
    """Return a pattern of a secret, each of its characters as it is or percent-encoded."""
    encoded = (("".join(f"%{byte:02x}" for byte in c.encode()), c) for c in secret)
    return "".join(f"(?:{re.escape(c)}|(?i:{code}))" for code, c in encoded)
