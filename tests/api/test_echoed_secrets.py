"""A server that sends back what it was sent, or what tears a log apart: no secret and no second line."""

import base64
import copy
import json
import logging
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.errors import (
    CfBillingAuthenticationError,
    CfBillingError,
    CfBillingMalformedResponseError,
    CfBillingOutcomeUnknownError,
)
from airflow_provider_cfbilling.api.http.text import Redactor, one_line
from airflow_provider_cfbilling.charging.reconcile import snapshot_invoices
from tests.api.test_reader_and_models import INVOICE, READS
from tests.raw_servers import Peer, RawServer, client_at, http, ok, refused, responding

SECRET = "planted+secret/0123456789=Zz"
CLIENT_SECRET = "pi_3Nx8dE_secret_9KbQ2"
FORMS = {
    "plain": SECRET,
    "percent-encoded": quote(SECRET, safe=""),
    "percent-encoded in small letters": quote(SECRET, safe="").replace("%2B", "%2b"),
    "percent-encoded through and through": "".join(f"%{ord(c):02X}" for c in SECRET),
    "base64": base64.b64encode(SECRET.encode()).decode(),
    "base64 of the header": base64.b64encode(f"Bearer {SECRET}".encode()).decode(),
    "base64 of a pair": base64.urlsafe_b64encode(f"me@example.com:{SECRET};".encode()).decode(),
    "client secret": CLIENT_SECRET,
}
TEARING = "a\x1b[31m\r\nb\u2028\x9b2J\u202e" + "x" * 10_000
TOPUP = {"payment_intent_id": "in_1", "onboarding": True, "brand": "visa", "last4": "4242"}
CALLS: dict[str, tuple[Callable[[CfBillingClient], Any], Any]] = {
    **READS,
    "createTopup": (lambda client: client.create_topup(1000), TOPUP),
}
NO_IDS = [
    "../../topup",
    "in_1?type=auto",
    "in_1#",
    "in_1\r\nX-Evil: 1",
    "in_\u0661",
    "\uff49n_1",
    "in 1",
    "-",
    "i" * 256,
]


@pytest.fixture(params=[{}, {"email": "me@example.com"}], ids=["token", "global key"])
def credentials(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"secret": SECRET, **request.param}


def shown(url: str, call: Callable[[CfBillingClient], Any], **credentials: Any) -> tuple[Any, str]:
    """What a call comes to: the response or the error, and how a log or an XCom shows it."""
    with client_at(url, **credentials) as client:
        try:
            response = call(client)
        except CfBillingError as error:
            return error, f"{error}"
        return response, json.dumps(response.to_dict(), ensure_ascii=False)


def with_texts(value: Any, text: str) -> Iterator[Any]:
    """Yield a JSON value again and again, each time with another of its texts or nulls replaced."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        replacements = [text] if inner is None or isinstance(inner, str) else with_texts(inner, text)
        for replacement in replacements:
            changed = copy.copy(value)
            changed[key] = replacement
            yield changed


def spelled_out(text: str) -> str:
    """JSON text whose every character is escaped."""
    return "".join(f"\\u{ord(c):04x}" for c in text)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize(
    "call", [READS["getTopupLimits"][0], CALLS["createTopup"][0]], ids=["read", "charge"]
)
def test_credentials_in_a_refusal_are_hidden(
    call: Callable[[CfBillingClient], Any], form: str, credentials: dict[str, Any], caplog: Any
):
    caplog.set_level(logging.DEBUG)
    response = http(refused(9109, f"Invalid token {form} given"), 401, cf_ray=f"8a {form}")
    with RawServer(responding(response)) as server:
        error, said = shown(server.url, call, **credentials)

    assert type(error) is CfBillingAuthenticationError  # a refusal is still a refusal
    assert "Invalid token" in said
    assert "given" in said
    assert "***" in said
    assert form.rstrip("=")[4:-4] not in f"{said} {error!r} {vars(error)} {error.__cause__!r} {caplog.text}"


@pytest.mark.parametrize(
    "response",
    [
        f"HTTP/1.1 OK {SECRET}\r\n\r\n",
        f"{SECRET}\r\n\r\n",
        f"HTTP/1.1 200 OK\r\nYour {SECRET}\r\nContent-Length: 2\r\n\r\n{{}}",
        f"HTTP/1.1 200 OK\r\nX: y\r\n {SECRET}\r\nYour {SECRET}\r\n\r\n{{}}",
        f"HTTP/1.1 200 OK\r\nContent-Length: 1, {SECRET}\r\nContent-Encoding: {SECRET}\r\n\r\n{{}}",
        f"HTTP/1.1 200 OK\r\nContent-Length: {SECRET}\r\nTransfer-Encoding: {SECRET}\r\n\r\n{SECRET}",
        f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{SECRET}\r\n",
        f"HTTP/1.1 302 {SECRET}\r\nLocation: https://{SECRET}@[/\r\nContent-Length: 0\r\n\r\n",
        f"HTTP/1.1 401 {SECRET}\r\nSet-Cookie: {SECRET}={SECRET}\r\nDate: {SECRET}\r\n\r\n<html>{SECRET}",
        f"HTTP/1.1 429 {SECRET}\r\nRetry-After: {SECRET}\r\nRatelimit: {SECRET}\r\n\r\n{SECRET}",
        f'HTTP/1.1 200 OK\r\n\r\n{{"{SECRET}": 1, "success": true, "result": {{"{SECRET}": 1}}}}',
        f'HTTP/1.1 400 No\r\n\r\n{{"success": false, "errors": [{{"code": "{SECRET}", "message": "m"}}]}}',
    ],
    ids=lambda response: response[:60].encode("unicode_escape").decode(),
)
def test_credentials_anywhere_in_a_response_are_hidden(
    response: str, credentials: dict[str, Any], caplog: Any
):
    caplog.set_level(logging.DEBUG)
    with RawServer(responding(response.encode())) as server:
        for call in (READS["getTopupLimits"][0], CALLS["createTopup"][0]):
            error, said = shown(server.url, call, **credentials)
            assert isinstance(error, CfBillingError)
            assert said.isprintable()
            assert SECRET not in f"{said} {error!r} {vars(error)} {error.__cause__!r} {caplog.text}"


@pytest.mark.parametrize("operation", CALLS)
@pytest.mark.parametrize("spelled", [False, True], ids=["as it is", "escaped"])
def test_no_response_field_exposes_the_credentials(operation: str, spelled: bool):
    call, good = CALLS[operation]
    for result in with_texts(good, "PLACE"):
        body = json.dumps(ok(result)).replace("PLACE", spelled_out(SECRET) if spelled else SECRET)
        with RawServer(responding(http(body.encode()))) as server:
            response, said = shown(server.url, call, secret=SECRET)
        assert SECRET not in f"{said} {response!r}"


@pytest.mark.parametrize("operation", CALLS)
def test_response_texts_are_single_bounded_lines(operation: str):
    call, good = CALLS[operation]
    for result in with_texts(good, TEARING):
        with RawServer(responding(http(ok(result)))) as server:
            _, said = shown(server.url, call)
        assert said.isprintable()
        assert len(said) < 1500


def test_header_with_line_breaks_is_shown_as_one_line():
    ray = "a\x1b[31m\x9b2J\r\n b\r\n\tc" + "x" * 500
    with RawServer(responding(http(refused(), 400, cf_ray=ray))) as server:
        error, said = shown(server.url, READS["getTopupConfig"][0])
    assert said.isprintable()
    assert error.request_id.startswith("a [31m")
    assert len(error.request_id) <= 64


# ids from responses


@pytest.mark.parametrize("no_id", [*NO_IDS, SECRET, CLIENT_SECRET])
def test_invalid_topup_id_is_never_returned(no_id: str):
    status, history = {"payment_intent_id": no_id, "status": "pending"}, READS["getInvoiceHistory"][1]
    invoices = history | {"invoices": [INVOICE | {"id": no_id}]}
    responses = [http(ok(result)) for result in (status, invoices, TOPUP | {"payment_intent_id": no_id})]

    def serve(peer: Peer) -> None:
        peer.request()
        peer.send(responses[len(server.heads) - 1].replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))

    with RawServer(serve) as server, client_at(server.url, secret=SECRET) as client:
        with pytest.raises(CfBillingMalformedResponseError, match=r"result\.payment_intent_id is not an id"):
            client.get_topup_status("in_1")
        sighting = snapshot_invoices(client)
        assert (sighting.invoices, sighting.complete) == ((), False)
        with pytest.raises(CfBillingOutcomeUnknownError, match="no readable payment_intent_id"):
            client.create_topup(1000)

    root = f"/accounts/{client.account_id}/ai-gateway/billing"
    assert [head.partition("\r\n")[0] for head in server.heads] == [
        f"POST {root}/topup/status HTTP/1.1",
        f"GET {root}/invoice-history?type=manual HTTP/1.1",
        f"POST {root}/topup HTTP/1.1",
    ]


# links from responses


@pytest.mark.parametrize(
    ("address", "kept"),
    [
        ("https://pay.stripe.com/invoice/acct_1M2/test_YWN-j~0,LDQ4/pdf?s=ap&t=%20(1)", True),
        ("https://files.example:8443/in_1.pdf", True),
        ("https://files.example", True),
        ("http://files.example/in_1.pdf", False),
        ("javascript:alert(1)//https://", False),
        ("https://stripe.com@evil.example/in_1.pdf", False),
        ("https://stripe.com:pw@evil.example/", False),
        ("https://evil.example\\@stripe.com/", False),
        ("https:///in_1.pdf", False),
        ("https://str\u0131pe.com/in_1.pdf", False),
        ('https://a.example/"onclick="alert(1)', False),
        ("https://a.example/'x", False),
        ("https://a.example/<script>", False),
        ("https://a.example/in 1.pdf", False),
        ("https://a.example/\r\nX-Evil: 1", False),
        ("https://a.example/\x1b[31m", False),
        ("https://a.example/\u202e", False),
        ("https://a.example/" + "x" * 2000, False),
    ],
)
def test_unsafe_invoice_link_is_dropped(address: str, kept: bool):
    call, history = READS["getInvoiceHistory"]
    invoices = history | {"invoices": [INVOICE | {"invoice_pdf": address}]}
    with RawServer(responding(http(ok(invoices)))) as server, client_at(server.url) as client:
        (invoice,) = call(client).invoices  # type: ignore[attr-defined]
    assert invoice.invoice_pdf == (address if kept else None)


# the rules themselves


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_only_the_secret_itself_is_hidden(form: str):
    redacted = Redactor(SECRET).redacted(f"this {form}, and that")
    assert form.rstrip("=")[4:-4] not in redacted
    assert redacted.startswith("this ")
    assert redacted.endswith(", and that")


def test_secret_is_hidden_before_a_text_is_cut():
    said = one_line(Redactor(SECRET).redacted("x" * 290 + SECRET))
    assert SECRET[:5] not in said


def test_short_secret_is_not_sought_in_ordinary_words():
    assert Redactor("in").redacted("in_1 is pending") == "in_1 is pending"


def test_what_holds_no_secret_stays_as_it_is():
    value = {"client_secret": None, "id": "in_1", "list": [1, 2.5, True, None, "text ***"]}
    assert Redactor(SECRET).redacted_json(value) == value
