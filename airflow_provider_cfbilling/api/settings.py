"""The account, the credentials and the time limits. Refuses by name what cannot work, before any request."""

import ipaddress
import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from airflow_provider_cfbilling import validation
from airflow_provider_cfbilling.api.errors import CfBillingInvalidRequestError

DEFAULT_BASE_URL = "https://api.cloudflare.com/client/v4"

# What an HTTP header can carry without ever being read as two headers.
_VISIBLE_ASCII = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True)
class Settings:
    """How to reach one account.

    :param account_id: Cloudflare account id, 32 hex digits.
    :param secret: API token; with ``email``, the Global API Key. Never shown.
    :param email: the user's address, only with a Global API Key.
    :param base_url: https, or plain http on this machine (the sandbox).
    :param connect_timeout: seconds to connect.
    :param read_timeout: seconds from the first byte sent to the last byte of the response.
    :param max_attempts: how often a read is tried. A top-up is always sent once.
    :raises CfBillingInvalidRequestError: naming the value that cannot work.
    """

    account_id: str
    secret: str = field(repr=False)
    email: str | None = None
    base_url: str = DEFAULT_BASE_URL
    connect_timeout: float = 10.0
    read_timeout: float = 60.0
    max_attempts: int = 5

    def __post_init__(self) -> None:
        object.__setattr__(self, "account_id", validation.required_account_id(self.account_id))
        object.__setattr__(self, "base_url", _checked_base_url(self.base_url))
        _check_secret(self.secret, "Global API Key" if self.email is not None else "API token")
        if self.email is not None:
            _check_email(self.email)
        for name in ("connect_timeout", "read_timeout"):
            timeout = validation.number(name, getattr(self, name), 0.001, 600, "seconds")
            object.__setattr__(self, name, timeout)
        attempts = validation.number("max_attempts", self.max_attempts, 1, 20, "tries of a read", whole=True)
        object.__setattr__(self, "max_attempts", attempts)


def _checked_base_url(base_url: str) -> str:
    try:
        parts = urlsplit(base_url)
        parts.port  # noqa: B018 (raises if the port is not a number)
        host = parts.hostname
    except ValueError:
        host = None
    if not host or not _VISIBLE_ASCII.fullmatch(base_url):
        raise CfBillingInvalidRequestError(
            f"API base URL must be a whole URL such as {DEFAULT_BASE_URL}; got {base_url!r:.120}."
        )
    if parts.username is not None or parts.query or parts.fragment:
        raise CfBillingInvalidRequestError(
            "API base URL must hold no user name, query or fragment; credentials go into login and password."
        )
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host)):
        raise CfBillingInvalidRequestError(
            f"API base URL must start with https:// ({parts.scheme}://{host} would show your credentials to "
            "the network); plain http:// is for this machine's loopback only."
        )
    return base_url.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_secret(secret: str, name: str) -> None:
    if not secret:
        raise CfBillingInvalidRequestError(f"{name} is empty.")
    if not _VISIBLE_ASCII.fullmatch(secret):
        raise CfBillingInvalidRequestError(
            f"{name} holds a blank, a line break or a character outside ASCII; paste it again without them."
        )


def _check_email(email: object) -> None:
    if not isinstance(email, str) or "@" not in email or not _VISIBLE_ASCII.fullmatch(email):
        raise CfBillingInvalidRequestError(
            f"email must be the address that the Global API Key belongs to; got {email!r:.60}."
        )
