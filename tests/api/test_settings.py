"""What cannot work is refused by name, before any request, and no secret is shown."""

from typing import Any

import pytest

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.errors import CfBillingInvalidRequestError
from airflow_provider_cfbilling.api.settings import DEFAULT_BASE_URL, Settings

ACCOUNT_ID = "0123456789abcdef0123456789abcdef"
GOOD: dict[str, Any] = {"account_id": ACCOUNT_ID, "secret": "hush-hush"}


@pytest.mark.parametrize(
    ("given", "named"),
    [
        *[
            ({"account_id": account_id}, "account id must be 32 hex digits")
            for account_id in (
                *("", "0" * 31, "0" * 33, "g" * 32, "0 " * 16, ACCOUNT_ID + "\n0", None, 7),
                *(ACCOUNT_ID[:-4] + "/../", ACCOUNT_ID[:-1] + "?", ACCOUNT_ID[:-1] + "#", "../" + ACCOUNT_ID),
                *("\u0660" * 32, "\uff11" * 32, "\uff21" * 32, "\u00b2" * 32),  # digits elsewhere
            )
        ],
        *[
            ({"base_url": url}, "API base URL must be a whole URL")
            for url in (
                "",
                "api.cloudflare.com",
                "https://",
                "https:///v4",
                "https://a b",
                "https://a\nb",
                "https://[::1",
                "https://a:b",
                "https://ä.example",
            )
        ],
        *[
            ({"base_url": url}, "API base URL must start with https://")
            for url in (
                "http://api.cloudflare.com/client/v4",
                "http://localhost.example.com",
                "http://127.0.0.1.example.com",
                "http://10.0.0.1",
                "ftp://127.0.0.1",
            )
        ],
        *[
            ({"base_url": url}, "must hold no user name, query or fragment")
            for url in ("https://me:pw@a.example", "https://:pw@a.example", "https://a/?b=c", "https://a/#b")
        ],
        ({"secret": ""}, "API token is empty"),
        ({"secret": "", "email": "me@example.com"}, "Global API Key is empty"),
        *[
            ({"secret": secret}, "API token holds a blank, a line break or a character outside ASCII")
            for secret in ("hush\n", "hush\r\nX-Evil: 1", "hu sh", "hüsh", "\thush", "hush\x00")
        ],
        *[
            ({"email": email}, "email must be the address")
            for email in ("", "me", "me@example.com\nX-Evil: 1", "m e@example.com", 7, ["@"])
        ],
        *[
            ({name: value}, f"{name} must be from")
            for name in ("connect_timeout", "read_timeout")
            for value in (0, -1, 601, float("nan"), float("inf"))
        ],
        *[({"max_attempts": value}, "max_attempts must be from 1 to 20") for value in (0, -1, 21)],
    ],
    ids=repr,
)
def test_setting_that_cannot_work_is_refused_by_name(given: dict[str, Any], named: str):
    with pytest.raises(CfBillingInvalidRequestError, match=named) as caught:
        Settings(**GOOD | given)
    assert "hush" not in f"{caught.value}{caught.value!r}"


@pytest.mark.parametrize(
    "base_url",
    [
        "https://api.cloudflare.com/client/v4",
        "https://gateway.internal:8443/cloudflare/",
        "HTTPS://API.CLOUDFLARE.COM/client/v4",
        "http://127.0.0.1:8765/client/v4",
        "http://127.8.9.1",
        "http://[::1]:8765",
        "http://localhost:8765",
    ],
)
def test_https_and_loopback_http_are_accepted(base_url: str):
    assert Settings(**GOOD, base_url=base_url).base_url == base_url.rstrip("/")


def test_nothing_but_account_and_token_is_needed():
    settings = Settings(**GOOD)
    assert settings.base_url == DEFAULT_BASE_URL == "https://api.cloudflare.com/client/v4"
    assert (settings.email, settings.connect_timeout, settings.read_timeout) == (None, 10, 60)
    assert settings.max_attempts == 5


def test_account_id_may_be_in_capitals():
    assert Settings(**GOOD | {"account_id": ACCOUNT_ID.upper()}).account_id == ACCOUNT_ID


def test_secret_is_never_shown():
    settings = Settings(**GOOD, email="me@example.com")
    client = CfBillingClient(settings)
    assert "hush" not in f"{settings} {settings!r} {client!r} {vars(client)}"
