"""Secrets that are planted, to be sought in every form in which they could come to light."""

from base64 import b64encode
from urllib.parse import quote


def encoded(secret: str) -> list[str]:
    """Return a secret as it is, percent-encoded, and in base64 with what can stand around it."""
    base64 = [b64encode(b" " * before + secret.encode() + b" ").decode() for before in range(3)]
    return [secret, quote(secret, safe=""), *base64]


def forms_of(secret: str) -> list[str]:
    """Return what to seek: of base64 the part that is the same whatever stands around the secret."""
    plain, percent_encoded, *base64 = encoded(secret)
    return [plain, percent_encoded, *(text[4:-4] for text in base64)]
