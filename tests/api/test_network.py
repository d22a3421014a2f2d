"""Proxies and certificates of the environment: used as they are meant, or refused, and never shown."""

import base64
import logging
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import requests

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.errors import (
    CfBillingError,
    CfBillingInvalidRequestError,
    CfBillingUnavailableError,
)
from airflow_provider_cfbilling.api.http.send_tracking import SendTrackingAdapter, request_attempt
from tests.api.company_network import VARIABLES, Authority, ConnectProxy
from tests.raw_servers import ACCOUNT_ID, Peer, RawServer, client_at, http, ok, refused, responding

TOPUP = {"payment_intent_id": "in_1"}
LIMITS = {"manual_topup": {"limits": {"min_cents": 1000, "max_cents": 5000, "currency": "usd"}}}
USER, PASSWORD = "us%er", "pa#s:s@[/"
CALLS: dict[str, Callable[[CfBillingClient], Any]] = {
    "read": lambda client: client.get_credit_balance(),
    "charge": lambda client: client.create_topup(1000),
}
# Found by no name server, so that only a proxy gets there.
HOST = "api.cloudflare.invalid"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def api(peer: Peer) -> None:
    """Respond to every request: limits, top-up and status in one."""
    while True:
        peer.request()
        peer.send(http(ok(LIMITS | TOPUP | {"status": "completed"})))


def proxy_url(port: int, user: str = USER, password: str = PASSWORD) -> str:
    return f"http://{quote(user, safe='')}:{quote(password, safe='')}@127.0.0.1:{port}"


def error_of(call: Callable[[CfBillingClient], Any], base_url: str = f"https://{HOST}") -> CfBillingError:
    """What comes out of making a client and using it."""
    with pytest.raises(CfBillingError) as caught, client_at(base_url) as client:
        call(client)
    return caught.value


def shown(error: CfBillingError, caplog: pytest.LogCaptureFixture) -> str:
    return f"{error} {error!r} {vars(error)} {error.__cause__!r} {caplog.text}"


# as it is meant


def test_requests_pass_a_company_proxy_and_its_authority(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.bundle))
    with (
        RawServer(api, authority.certificate_for(HOST)) as server,
        ConnectProxy(server.port, USER, PASSWORD) as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", proxy_url(proxy.port))
        with client_at(f"https://{HOST}") as client:
            assert client.get_topup_limits().min_cents == 1000
            assert client.create_topup(1000).payment_intent_id == "in_1"
            assert client.get_topup_status("in_1").status == "completed"
    assert proxy.opened == [f"{HOST}:443"] * 2  # one for reads, and one for the charge alone
    assert [head.split()[0] for head in server.heads] == ["GET", "POST", "POST"]
    assert not any("Proxy-Authorization" in head for head in server.heads)


@pytest.mark.parametrize("name", ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"])
@pytest.mark.parametrize(
    ("scheme", "host"),
    [("http://", "127.0.0.1"), ("", "127.0.0.1"), ("HTTP://", "localhost"), ("", "localhost")],
)
def test_proxy_may_be_named_as_requests_allows(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, name: str, scheme: str, host: str
):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.bundle))
    with (
        RawServer(api, authority.certificate_for(HOST)) as server,
        ConnectProxy(server.port, "u", "p") as proxy,
    ):
        monkeypatch.setenv(name, f"{scheme}u:p@{host}:{proxy.port}/")
        with client_at(f"https://{HOST}") as client:
            client.get_topup_limits()
    assert len(proxy.opened) == 1


@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
def test_no_proxy_goes_straight(authority: Authority, monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.bundle))
    monkeypatch.setenv(name, "example.com,127.0.0.1")
    with (
        RawServer(api, authority.certificate_for("127.0.0.1")) as server,
        ConnectProxy(server.port, USER, PASSWORD) as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", proxy_url(proxy.port))
        with client_at(server.url) as client:
            client.get_topup_limits()
            client.create_topup(1000)
    assert (proxy.opened, proxy.refused) == ([], 0)
    assert len(server.heads) == 2


def test_proxy_that_is_not_used_may_be_wrong(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://user:pa#ss@proxy:3128")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HTTP_PROXY", "http://[")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/bundle.pem")  # of no use without TLS
    with RawServer(api) as server, client_at(server.url) as client:
        client.get_topup_limits()
        client.create_topup(1000)


# what cannot work


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("bundle", ["other", "none"])
def test_server_of_another_authority_is_not_trusted(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Any, bundle: str
):
    if bundle == "other":
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(Authority(tmp_path, "Other").bundle))
    else:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.bundle))  # which requests does not read
    with (
        RawServer(api, authority.certificate_for(HOST)) as server,
        ConnectProxy(server.port, USER, PASSWORD) as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", proxy_url(proxy.port))
        error = error_of(call)
    assert type(error) is CfBillingUnavailableError
    assert "certificate verify failed" in str(error)
    assert ("Nothing was sent" in str(error)) == (call is CALLS["charge"])
    assert server.heads == []


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("echoes", [False, True])
@pytest.mark.parametrize(
    ("user", "password"), [(USER, "wr/ng"), ("zq", "q7"), ("automatic", "p%C3%A4ss-w\u00f6rd"), ("uzer", "")]
)
def test_wrong_proxy_password_is_not_shown(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    call: Any,
    echoes: bool,
    user: str,
    password: str,
):
    caplog.set_level(logging.DEBUG)
    with RawServer(api) as server, ConnectProxy(server.port, USER, PASSWORD, echoes) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy_url(proxy.port, user, password))
        error = error_of(call)
        address = f"127.0.0.1:{proxy.port}"
    assert type(error) is CfBillingUnavailableError
    assert " 407 " in str(error)
    assert f"through the proxy {address} of HTTPS_PROXY" in str(error)
    assert ("Nothing was sent" in str(error)) == (call is CALLS["charge"])
    assert (proxy.opened, proxy.refused, server.heads) == ([], 1, [])
    if echoes:
        assert "***" in str(error)
    said = shown(error, caplog)
    pair = base64.b64encode(f"{user}:{password}".encode("latin-1")).decode()
    for secret in {user, quote(user, safe=""), password, quote(password, safe=""), pair} - {""}:
        assert secret not in said


SPOILED = {
    "a # in the password": "http://user:hunter#2@proxy.example:3128",
    "a / in the password": "http://user:hunter/2@proxy.example:3128",
    "a / after digits": "http://hunter:12/34@proxy.example:3128",
    "a # after digits": "http://hunter:12#34@proxy.example:3128",
    "a ? after digits": "http://hunter:12?34@proxy.example:3128",
    "a ? in the password": "http://user:hunter?2@proxy.example:3128",
    "a backslash": "http://user:hunter\\2@proxy.example:3128",
    "a [ in the user": "http://us[er:hunter2@proxy.example:3128",
    "a ] in the password": "http://user:hunt]er2@proxy.example:3128",
    "[] in the password": "http://user:hunt[er]2@proxy.example:3128",
    "a line break": "http://user:hunter2@proxy.exa\nmple:3128",
    "no host": "http://user:hunter2@",
    "no host but a port": "http://user:hunter2@:3128",
    "nothing but a scheme": "http://",
    "no slashes": "http:user:hunter2@proxy.example:3128",
    "a port that is no number": "http://user:hunter2@proxy.example:31x28",
    "a port beyond all": "http://user:hunter2@proxy.example:99999",
    "port 0": "http://user:hunter2@proxy.example:0",
    "another scheme": "ftp://user:hunter2@proxy.example:3128",
    "half an address": "http://user:hunter2@[::1:3128",
    "a blank in the host": "http://user:hunter2@proxy example:3128",
    "a path": "http://user:hunter2@proxy.example:3128/hunter2",
}


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("value", SPOILED.values(), ids=SPOILED)
def test_invalid_proxy_is_refused_by_name_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, value: str
):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv(name, value)
    error = error_of(CALLS["charge"])
    assert type(error) is CfBillingInvalidRequestError
    assert f"The proxy in the environment's {name} cannot be used: " in str(error)
    assert "percent-encode" in str(error)
    assert "Nothing was sent" in str(error)
    said = shown(error, caplog)
    for secret in ("hunter", "us[er", "12", "34", "ftp:"):
        assert secret not in said.replace("3128", "")


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_connection_setup_failure_proves_nothing_was_sent(monkeypatch: pytest.MonkeyPatch, call: Any):
    """No check knows this one: `requests` sends a proxy's password in Latin-1, which has no euro sign."""
    monkeypatch.setenv("HTTPS_PROXY", "http://user:hunter2%E2%82%AC@127.0.0.1:1")
    error = error_of(call)
    assert type(error) is CfBillingInvalidRequestError
    assert "No connection can be set up" in str(error)
    assert "through the proxy 127.0.0.1:1 of HTTPS_PROXY" in str(error)
    assert ("Nothing was sent" in str(error)) == (call is CALLS["charge"])
    assert "hunter2" not in str(error)
    assert "20ac" not in str(error)


@pytest.mark.parametrize("value", ["http://user:pa#ss@proxy:3128", "http://user:p[ss@proxy:3128"])
def test_connection_test_says_so_too(monkeypatch: pytest.MonkeyPatch, value: str):
    from airflow_provider_cfbilling.hooks.cfbilling import CfBillingHook  # it imports Airflow: seconds

    monkeypatch.setenv("AIRFLOW_CONN_CFBILLING_DEFAULT", f"cfbilling://{ACCOUNT_ID}:token-of-mine@")
    monkeypatch.setenv("HTTPS_PROXY", value)
    well, said = CfBillingHook().test_connection()
    assert not well
    assert "The proxy in the environment's HTTPS_PROXY cannot be used" in said
    assert "pa#" not in said
    assert "p[s" not in said


def test_http_proxy_of_a_loopback_server_is_checked_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTP_PROXY", "http://user:hunter#2@proxy.example:3128")
    error = error_of(CALLS["read"], "http://127.0.0.1:1")
    assert type(error) is CfBillingInvalidRequestError
    assert "HTTP_PROXY" in str(error)
    assert "hunter" not in str(error)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("status", [400, 403, 407, 503])
def test_proxy_credentials_echoed_by_the_proxy_are_hidden(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, call: Any, status: int
):
    caplog.set_level(logging.DEBUG)
    pair = base64.b64encode(b"uzer:q[7").decode()
    response = http(refused(9109, f"No: Basic {pair}, uzer q[7, q%5b7"), status, cf_ray="uzer-q[7")
    with RawServer(responding(response)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://uzer:q%5B7@127.0.0.1:{proxy.port}")
        error = error_of(call, "http://127.0.0.1:1")
    assert f"Proxy-Authorization: Basic {pair}" in proxy.heads[0]
    assert "No: Basic ***, *** ***, ***" in str(error)
    assert error.request_id == "***-***"
    said = shown(error, caplog)
    for secret in (pair, "uzer", "q[7", "q%5b7"):
        assert secret not in said


def test_socks_proxy_needs_pysocks(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTPS_PROXY", "socks5h://user:hunter2@127.0.0.1:1080")
    error = error_of(CALLS["charge"])
    assert type(error) is CfBillingInvalidRequestError
    assert "pip install PySocks" in str(error)
    assert "hunter2" not in str(error)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
@pytest.mark.parametrize("content", [None, b"", b"not a certificate"], ids=["missing", "empty", "garbage"])
def test_certificates_that_cannot_be_read_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Any, name: str, content: bytes | None
):
    bundle = tmp_path / "company-ca.pem"
    if content is not None:
        bundle.write_bytes(content)
    monkeypatch.setenv(name, str(bundle))
    error = error_of(call)
    assert type(error) is CfBillingInvalidRequestError
    assert not error.retryable
    assert f"The certificates of the environment's {name} cannot be read: {bundle}" in str(error)
    if content is None:
        assert "No such file" in str(error)


def test_folder_of_certificates_is_taken(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    openssl = subprocess.run(
        ["openssl", "x509", "-hash", "-noout", "-in", str(authority.bundle)], capture_output=True, text=True
    )
    (tmp_path / f"{openssl.stdout.strip()}.0").write_bytes(authority.bundle.read_bytes())
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with (
        RawServer(api, authority.certificate_for("127.0.0.1")) as server,
        client_at(server.url) as client,
    ):
        client.get_topup_limits()


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize(
    "base_url", ["https://.example.com", "https://*.example.com", "https://a..b.example"]
)
def test_unusable_base_url_is_refused_before_sending(call: Any, base_url: str):
    error = error_of(call, base_url)
    assert type(error) is CfBillingInvalidRequestError
    assert base_url in str(error)
    assert "Nothing was sent" in str(error) or call is CALLS["read"]


@pytest.mark.parametrize(
    "proxy",
    [
        "http://user:pa#ss@proxy:3128",
        "http://user:pass@",
        "http://%E2%82%AC:x@proxy",
        "ftp://proxy",
        "http://[",
    ],
)
def test_adapter_that_gets_no_connection_has_sent_nothing(proxy: str):
    """Whatever it is that stops it: the checks before it know only of what has been met."""
    prepared = requests.Request("POST", f"https://{HOST}/").prepare()
    with request_attempt(1) as this:
        with pytest.raises((ValueError, TypeError)):
            SendTrackingAdapter().send(prepared, proxies={"https": proxy})
        assert this.nothing_sent
