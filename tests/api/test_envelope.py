"""What is not Cloudflare's envelope ends in a documented error, whatever it is."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_cfbilling.api.errors import (
    CfBillingAuthenticationError,
    CfBillingError,
    CfBillingInvalidRequestError,
    CfBillingMalformedResponseError,
    CfBillingNotFoundError,
    CfBillingPermissionError,
    CfBillingRateLimitError,
    CfBillingUnavailableError,
)
from airflow_provider_cfbilling.api.http.envelope import Reply, result_of
from tests.raw_servers import RawServer, client_at, http, ok, refused, responding

CONFIG = b'{"amount": 1000, "threshold": 5000, "currency": "usd"}'
YES = b'{"success": true, "errors": [], "messages": [], "result": %s}'


def failure_of(body: object, status: int = 200, **headers: object) -> CfBillingError:
    """What a client makes of a response."""
    with (
        RawServer(responding(http(body, status, **headers))) as server,
        client_at(server.url) as client,
        pytest.raises(CfBillingError) as caught,
    ):
        client.get_topup_config()
    return caught.value


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"17",
        b"<!DOCTYPE html>",
        b"\xff\xfe\xfa",
        b'{"success": true, "result": "\xe9"}',
        b'{"success": tru',
        b'{"success": "true", "result": {}}',
        b'{"success": 1, "result": {}}',
        b'{"success": true}',
        b'{"result": {}}',
        b'{"success": true, "result": {}, "result": {}}',
        b'{"success": true, "success": true, "result": {}}',
        YES % b'{"amount": 1, "amount": 2, "threshold": 3, "currency": "usd"}',
        YES % b'{"amount": NaN, "threshold": 3, "currency": "usd"}',
        YES % b'{"amount": 1, "threshold": Infinity, "currency": "usd"}',
        YES % b'{"amount": -Infinity, "threshold": 3, "currency": "usd"}',
        YES % b'{"amount": 1, "threshold": 1e999, "currency": "usd"}',
        YES % b'{"amount": 1, "threshold": -1e999, "currency": "usd"}',
        YES % (b'{"amount": 1, "threshold": 1%s, "currency": "usd"}' % (b"0" * 400)),
        YES % (b'{"amount": 1, "threshold": 1%s, "currency": "usd"}' % (b"0" * 100_000)),
        YES % (b"[" * 200_000 + b"]" * 200_000),
        YES % (b'{"a":' * 200_000 + b"1" + b"}" * 200_000),
        YES % CONFIG + b"x",
        YES % CONFIG + YES % CONFIG,
        json.dumps(refused() | {"errors": []}).encode(),
        json.dumps(refused() | {"errors": ["no"]}).encode(),
        json.dumps(refused() | {"errors": [{"code": 1}]}).encode(),
        json.dumps(refused() | {"errors": [{"code": None, "message": "no"}]}).encode(),
        json.dumps(refused() | {"errors": [{"code": 1, "message": [1]}]}).encode(),
        json.dumps(refused() | {"errors": [{"code": 1, "message": {"a": 1}}]}).encode(),
        b'{"success": false, "errors": [{"code": 1e999, "message": "no"}], "result": null}',
        json.dumps(refused()).encode(),
    ],
    ids=lambda body: repr(body[:70]),
)
def test_undocumented_2xx_is_malformed(body: bytes):
    assert type(failure_of(body)) is CfBillingMalformedResponseError


@pytest.mark.parametrize("status", [200, 201, 299])
def test_any_2xx_with_a_whole_envelope_is_taken(status: int):
    with RawServer(responding(http(YES % CONFIG, status))) as server, client_at(server.url) as client:
        assert client.get_topup_config().threshold_cents == 5000


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, 7001, CfBillingInvalidRequestError),
        (401, 1, CfBillingAuthenticationError),
        (403, 10000, CfBillingAuthenticationError),
        (403, 9109, CfBillingAuthenticationError),
        (403, 10403, CfBillingPermissionError),
        (404, 7003, CfBillingNotFoundError),
        (418, 1, CfBillingInvalidRequestError),
        (429, 10429, CfBillingRateLimitError),
        (500, 1, CfBillingUnavailableError),
        (599, 1, CfBillingUnavailableError),
        (304, 1, CfBillingMalformedResponseError),
    ],
)
def test_refusal_becomes_its_documented_error(status: int, code: int, kind: type[CfBillingError]):
    error = failure_of(b"" if status == 304 else refused(code, "Not today"), status, cf_ray="8a-AMS")

    assert type(error) is kind
    assert error.status == status
    assert error.request_id == "8a-AMS"
    assert f"HTTP {status}" in str(error)
    assert "cf-ray 8a-AMS" in str(error)
    if status != 304:
        assert error.codes == (code,)
        assert "Not today" in str(error)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, CfBillingMalformedResponseError),
        (403, CfBillingMalformedResponseError),
        (404, CfBillingMalformedResponseError),
        (429, CfBillingRateLimitError),
        (500, CfBillingUnavailableError),
        (522, CfBillingUnavailableError),
    ],
)
def test_edge_page_becomes_the_error_of_its_status(status: int, kind: type[CfBillingError]):
    error = failure_of(b"<!DOCTYPE html><h1>Sorry</h1>", status, cf_ray="8a-AMS")
    assert type(error) is kind
    assert (error.status, error.request_id) == (status, "8a-AMS")


def test_message_of_a_stranger_is_one_short_line():
    error = failure_of(refused(1, "line one\nline two\x1b[31m\u2028" + "x" * 10_000), 400)
    assert error.message.isprintable()
    assert len(str(error)) < 400


def test_up_to_five_errors_are_reported():
    errors = [{"code": n, "message": f"reason {n}"} for n in range(1, 9)]
    error = failure_of(refused() | {"errors": errors}, 400)
    assert error.codes == (1, 2, 3, 4, 5)
    assert "reason 1; reason 2; reason 3; reason 4; reason 5" in str(error)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
envelopes = st.fixed_dictionaries(
    {},
    optional={
        "success": st.booleans() | json_values,
        "errors": json_values
        | st.lists(
            st.fixed_dictionaries({}, optional={"code": json_values, "message": json_values}), max_size=3
        ),
        "result": json_values,
    },
)


@given(status=st.integers(200, 599), envelope=envelopes)
def test_any_json_is_a_result_or_a_documented_error(status: int, envelope: dict[str, Any]):
    reply = Reply(status, json.dumps(envelope).encode())
    try:
        result_of(reply)
    except CfBillingError as error:
        assert str(error)  # noqa: PT017 (an error is one of two good ends)
    else:
        assert 200 <= status < 300
        assert envelope["success"] is True
        assert not reply.proves_refusal
    if reply.proves_refusal:
        assert 400 <= status < 500
        assert envelope["success"] is False


@given(status=st.integers(200, 599), body=st.binary())
def test_any_bytes_are_a_documented_error(status: int, body: bytes):
    with pytest.raises(CfBillingError):
        result_of(Reply(status, body))
    assert not Reply(status, body).proves_refusal


def test_result_is_handed_on_as_it_came():
    assert result_of(Reply(200, json.dumps(ok({"a": [None, 1.5]})).encode())) == {"a": [None, 1.5]}
