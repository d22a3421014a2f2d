"""From an Airflow connection, in each of its forms, to settings; what is wrong is refused by its name."""

import json
from typing import Any
from urllib.parse import quote

import pytest
from airflow.providers.common.compat.sdk import Connection

from airflow_provider_cfbilling.api.errors import CfBillingInvalidRequestError
from airflow_provider_cfbilling.api.settings import DEFAULT_BASE_URL, Settings
from airflow_provider_cfbilling.get_provider_info import get_provider_info
from airflow_provider_cfbilling.hooks.cfbilling import CfBillingHook, settings_from_connection
from airflow_provider_cfbilling.sandbox import Sandbox

ACCOUNT_ID = "0123456789abcdef0123456789abcdef"
OTHER_ACCOUNT_ID = "f" * 32
GOOD = {"conn_type": "cfbilling", "login": ACCOUNT_ID, "password": "hush-hush"}


def settings_of(
    monkeypatch: pytest.MonkeyPatch, connection: str | dict[str, Any], account_id: str | None = None
) -> Settings:
    """Define a connection as Airflow reads it from the environment, a URI or JSON, and read it."""
    text = connection if isinstance(connection, str) else json.dumps(connection)
    monkeypatch.setenv("AIRFLOW_CONN_MINE", text)
    return settings_from_connection(CfBillingHook.get_connection("mine"), account_id)


def test_account_id_and_token_are_a_whole_connection(monkeypatch: pytest.MonkeyPatch):
    expected = Settings(ACCOUNT_ID, "hush-hush", base_url=DEFAULT_BASE_URL)
    assert settings_of(monkeypatch, f"cfbilling://{ACCOUNT_ID}:hush-hush@") == expected
    assert settings_of(monkeypatch, GOOD) == expected
    assert settings_of(monkeypatch, GOOD | {"host": "", "extra": ""}) == expected
    assert settings_of(monkeypatch, GOOD | {"host": None, "extra": {}}) == expected


def test_everything_can_be_given_in_a_uri(monkeypatch: pytest.MonkeyPatch):
    uri = (
        f"cfbilling://{ACCOUNT_ID}:{quote('hush/%@:?#+', safe='')}@{quote('https://a.example/v4', safe='')}"
        "?email=me%40example.com&connect_timeout=1.5&read_timeout=7&max_attempts=3"
    )
    expected = Settings(
        ACCOUNT_ID,
        "hush/%@:?#+",
        email="me@example.com",
        base_url="https://a.example/v4",
        connect_timeout=1.5,
        read_timeout=7,
        max_attempts=3,
    )
    assert settings_of(monkeypatch, uri) == expected


@pytest.mark.parametrize("as_text", [False, True])
def test_everything_can_be_given_in_json(monkeypatch: pytest.MonkeyPatch, as_text: bool):
    extra = {"email": "me@example.com", "connect_timeout": 2, "read_timeout": "7.5", "max_attempts": 3.0}
    connection = GOOD | {"host": "https://a.example", "extra": json.dumps(extra) if as_text else extra}
    assert settings_of(monkeypatch, connection) == Settings(
        ACCOUNT_ID,
        "hush-hush",
        email="me@example.com",
        base_url="https://a.example",
        connect_timeout=2,
        read_timeout=7.5,
        max_attempts=3,
    )


@pytest.mark.parametrize("nothing", [None, ""])
def test_empty_form_field_is_not_given(monkeypatch: pytest.MonkeyPatch, nothing: Any):
    extra = dict.fromkeys(("email", "connect_timeout", "read_timeout", "max_attempts"), nothing)
    assert settings_of(monkeypatch, GOOD | {"extra": extra}) == Settings(ACCOUNT_ID, "hush-hush")


def test_account_id_of_the_task_wins(monkeypatch: pytest.MonkeyPatch):
    assert settings_of(monkeypatch, GOOD, OTHER_ACCOUNT_ID).account_id == OTHER_ACCOUNT_ID
    assert settings_of(monkeypatch, GOOD | {"login": None}, OTHER_ACCOUNT_ID).account_id == OTHER_ACCOUNT_ID


@pytest.mark.parametrize("account_id", ["", " ", "None"])
def test_empty_account_id_falls_back_to_the_connection(monkeypatch: pytest.MonkeyPatch, account_id: str):
    assert settings_of(monkeypatch, GOOD, account_id).account_id == ACCOUNT_ID


def test_invalid_account_id_of_the_task_is_refused(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(CfBillingInvalidRequestError, match="account id must be 32 hex digits"):
        settings_of(monkeypatch, GOOD, "{{ account }}")


@pytest.mark.parametrize(
    ("given", "named"),
    [
        *[
            ({"login": login}, "account id must be 32 hex digits")
            for login in (None, "", "0" * 31, "g" * 32, "me@example.com")
        ],
        *[({"password": password}, "API token is empty") for password in (None, "")],
        *[
            ({"password": password}, "API token holds a blank, a line break")
            for password in ("hush\n", "hush hush", "hush\r\nX-Evil: 1", "hüsh")
        ],
        ({"host": "http://api.cloudflare.com/client/v4"}, "API base URL must start with https://"),
        ({"host": "api.cloudflare.com"}, "API base URL must be a whole URL"),
        ({"host": "https://me:hush@a.example"}, "API base URL must hold no user name"),
        ({"port": 443}, "port is not used"),
        ({"schema": "https"}, "schema is not used"),
        *[
            ({"extra": {name: "x"}}, f"extra holds '{name}'; it may hold only email, connect_timeout")
            for name in ("Email", "token", "timeout", "base_url", "extra__cfbilling__email")
        ],
        ({"extra": {"b": 1, "a": 2}}, "extra holds 'b', 'a'"),
        *[({"extra": {"email": email}}, "email must be the address") for email in ("me", 7, ["@"], True)],
        *[
            ({"extra": {name: value}}, f"{name} must be a number of seconds")
            for name in ("connect_timeout", "read_timeout")
            for value in ("soon", True, [], {}, "1,5")
        ],
        *[
            ({"extra": {"max_attempts": value}}, "max_attempts must be a whole number")
            for value in ("often", True, 2.5, "2.5", [], "inf", "nan", 1e999)
        ],
        *[
            ({"extra": {"read_timeout": value}}, "read_timeout must be from 0.001 to 600 seconds")
            for value in (-1, 601)
        ],
        *[({"extra": {"max_attempts": value}}, "max_attempts must be from 1 to 20") for value in (-1, 21)],
    ],
    ids=str,
)
def test_bad_connection_is_refused_by_field_name(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], named: str
):
    with pytest.raises(CfBillingInvalidRequestError, match=named) as caught:
        settings_of(monkeypatch, GOOD | given)

    assert str(caught.value).startswith("Connection 'mine' cannot be used (login is the account id")
    assert "hush" not in f"{caught.value}{caught.value!r}"


@pytest.mark.parametrize("extra", ["[1]", '"email"', "{", "email"])
def test_extra_that_is_no_json_object_is_refused(extra: str):
    """As it can be stored; from the environment Airflow 3.0 and 3.1 read no such connection at all."""
    connection: Any = Connection(conn_id="mine", **GOOD)
    connection.extra = extra
    with pytest.raises(CfBillingInvalidRequestError, match="extra is not a JSON object"):
        settings_from_connection(connection)


@pytest.mark.parametrize(
    ("tail", "named"),
    [
        ("@a.example", "API base URL must be a whole URL"),
        ("@:443", "port is not used"),
        ("@/https", "schema is not used"),
        ("@?token=hush", "extra holds 'token'"),
        ("@?read_timeout=soon", "read_timeout must be a number of seconds"),
    ],
)
def test_bad_uri_is_refused_by_field_name(monkeypatch: pytest.MonkeyPatch, tail: str, named: str):
    with pytest.raises(CfBillingInvalidRequestError, match=named) as caught:
        settings_of(monkeypatch, f"cfbilling://{ACCOUNT_ID}:hush-hush{tail}")
    assert "hush" not in str(caught.value)


def test_malformed_connection_is_refused_before_any_request(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AIRFLOW_CONN_CFBILLING_DEFAULT", f"{sandbox.connection_uri()}?tiemout=3")
    with pytest.raises(CfBillingInvalidRequestError, match="extra holds 'tiemout'"):
        CfBillingHook().get_credit_balance()
    assert sandbox.requests() == []


def test_form_is_the_same_on_every_airflow():
    (declared,) = get_provider_info()["connection-types"]
    form = CfBillingHook.get_ui_field_behaviour()
    assert form["hidden_fields"] == declared["ui-field-behaviour"]["hidden-fields"] == ["schema", "port"]
    assert form["relabeling"] == declared["ui-field-behaviour"]["relabeling"]
    assert declared["connection-type"] == CfBillingHook.conn_type
    assert declared["hook-name"] == CfBillingHook.hook_name
