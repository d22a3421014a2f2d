"""Whatever a server responds, what comes out is what was documented or a documented error.

Each run tries the same few; ``make fuzz`` tries others, and many.
"""

import copy
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.errors import CfBillingError
from airflow_provider_cfbilling.api.http.envelope import Reply, result_of
from airflow_provider_cfbilling.api.http.reader import read
from tests.fuzz.responses import GOOD, HEADERS, SECRET, body_of, check_response, headers_taken, places, tally
from tests.raw_servers import Peer, RawServer, client_at, http

LONGER = int(os.environ.get("CFBILLING_FUZZ_EXAMPLES", "0"))
exploring = settings(
    max_examples=LONGER or settings().max_examples,
    derandomize=not LONGER,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**25), 10**25)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from([0, -1, 1e11, 1e18, 1e300, "", "\r\nX-Evil: 1", "\x1b[31m", "in_1/../x", "9" * 400])
    | st.just(f"x {SECRET}")
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def damaged(draw: st.DrawFn, good: Any) -> Any:
    """A good value, of which a few parts are missing, changed or too many."""
    value = copy.deepcopy(good)
    for _ in range(draw(st.integers(1, 3))):
        *way, last = draw(st.sampled_from(places(value)[1:] or [("new",)]))
        parent = value
        for key in way:
            parent = parent[key]
        match draw(st.sampled_from(["change", "change", "remove", "add"])):
            case "change":
                parent[last] = draw(anything)
            case "remove" if parent:
                parent.pop(last, None) if isinstance(parent, dict) else parent.pop(last)
            case "add" if isinstance(parent, dict):
                parent[draw(st.text(max_size=10))] = draw(anything)
        if not isinstance(value, dict) or not value:
            return value
    return value


@pytest.mark.parametrize("name", GOOD)
def test_good_response_is_read(name: str):
    kind, good = GOOD[name]
    result = result_of(Reply(200, body_of(good)))
    assert (read(kind, result) if isinstance(kind, type) else kind(result)).to_dict()


@pytest.mark.parametrize("name", GOOD)
@exploring
@given(data=st.data(), status=st.sampled_from([200, 200, 200, 201, 302, 400, 403, 404, 429, 500, 524]))
def test_damaged_response_is_read_or_refused(name: str, data: st.DataObject, status: int):
    result = data.draw(damaged(GOOD[name][1]))
    check_response(name, status, body_of(result))


@exploring
@given(
    name=st.sampled_from(list(GOOD)),
    status=st.integers(200, 599),
    envelope=damaged(
        {
            "success": False,
            "errors": [{"code": 7003, "message": "no"}],
            "messages": [],
            "result": None,
        }
    ),
)
def test_damaged_envelope_is_refused(name: str, status: int, envelope: Any):
    check_response(name, status, json.dumps(envelope).encode())


@exploring
@given(data=st.data(), name=st.sampled_from(list(GOOD)), status=st.integers(200, 599))
def test_damaged_bytes_are_read_or_refused(data: st.DataObject, name: str, status: int):
    body = bytearray(body_of(GOOD[name][1]))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body)))
        body[at : at + data.draw(st.integers(0, 8))] = data.draw(
            st.binary(max_size=8)
            | st.sampled_from([b'{"', b"[" * 5000, b"NaN", b"1e999", b'"success":true,'])
        )
    check_response(
        name,
        status,
        bytes(body[: data.draw(st.integers(0, len(body)))] if data.draw(st.booleans()) else body),
    )


@exploring
@given(
    name=st.sampled_from(list(GOOD)),
    status=st.integers(200, 599),
    begin=st.sampled_from(
        [b"", b'{"success":', b'{"success":true,"result":', b'{"success":true,"result":{"balance":']
    ),
    nested=st.sampled_from([b"", b"[" * 5000, b'{"a":' * 5000]),
    noise=st.binary(max_size=200) | st.sampled_from([b"1e999}}", b"NaN}", b"9" * 5000 + b"}"]),
)
def test_noise_is_refused(name: str, status: int, begin: bytes, nested: bytes, noise: bytes):
    check_response(name, status, begin + nested + noise)


header_values = (
    st.text(st.characters(max_codepoint=255), max_size=80)
    | st.integers(-(10**12), 10**30).map(str)
    | st.from_regex(r'"[a-z]+";\s?r=\d+;\s?t=\d+', fullmatch=True)
    | st.builds(
        "{}, {:02} {} {} {:02}:{:02}:{:02} {}".format,
        st.sampled_from(["Mon", "", "x"]),
        st.integers(0, 40),
        st.sampled_from(["Jan", "Dec", "Foo"]),
        st.integers(-5, 10**6),
        *[st.integers(0, 99)] * 3,
        st.sampled_from(["GMT", "+9999", "-0100", "", "+99999999999999999999"]),
    )
    | st.sampled_from(["nan", "inf", "1e999", "-1", "\xb2", "9" * 5000, f"a {SECRET}", "\x1b[31m\r\n b"])
)


@exploring
@given(
    status=st.sampled_from([200, 429, 503]),
    headers=st.fixed_dictionaries({}, optional=dict.fromkeys(HEADERS, header_values)),
)
def test_any_headers_are_taken_or_passed_over(status: int, headers: dict[str, str]):
    headers_taken(status, headers)


@pytest.fixture(scope="module")
def sending() -> Iterator[tuple[CfBillingClient, list[bytes]]]:
    """A client, and what is sent to it."""
    responses: list[bytes] = []

    def serve(peer: Peer) -> None:
        peer.request()
        peer.send(responses[-1])

    with RawServer(serve) as server, client_at(server.url, secret=SECRET) as client:
        yield client, responses


@exploring
@given(data=st.data(), status=st.sampled_from([100, 200, 302, 400, 429, 500]))
def test_damaged_http_is_read_or_refused(
    sending: tuple[CfBillingClient, list[bytes]], data: st.DataObject, status: int
):
    client, responses = sending
    body = body_of(GOOD["TopupLimits"][1] | GOOD["Topup"][1])
    response = bytearray(http(body, status, cf_ray=SECRET, Date="Mon, 01 Jan 2026 00:00:00 GMT"))
    if data.draw(st.booleans()):
        response = response.replace(b"Content-Length: ", b"Transfer-Encoding: chunked\r\nX: ").replace(
            b"\r\n\r\n", b"\r\n\r\n%x\r\n" % len(body)
        )
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(response)))
        response[at : at + data.draw(st.integers(0, 8))] = data.draw(
            st.binary(max_size=8) | st.sampled_from([b"\r\n", b"-1\r\n", b"\r\n\r\n", b":", b" ", b"\x00"])
        )
    responses[:] = [bytes(response) + b"\r\n0\r\n\r\n"]
    for call in (client.get_topup_limits, lambda: client.create_topup(1000)):
        try:
            call()
        except CfBillingError as error:
            tally[type(error).__name__] += 1
            assert str(error).isprintable()  # noqa: PT017
            assert SECRET not in str(error)  # noqa: PT017
        else:
            tally["read"] += 1
