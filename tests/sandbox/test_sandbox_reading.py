from __future__ import annotations

import re
import time
from email.utils import parsedate_to_datetime

import pytest
import requests

from airflow_provider_cfbilling.sandbox import Sandbox


def history(call, **query: object) -> dict:
    response = call("GET", "invoice-history", params=query)
    assert response.status_code == 200, response.text
    return response.json()["result"]


def test_history_is_newest_first_and_filtered_by_type(sandbox: Sandbox, call, topup):
    old = sandbox.add_invoice(5000, created=1_700_000_000, status="void", origin="auto").id
    new = topup().json()["result"]["payment_intent_id"]

    assert [invoice["id"] for invoice in history(call)["invoices"]] == [new, old]
    assert [invoice["id"] for invoice in history(call, type="auto")["invoices"]] == [old]
    (manual,) = history(call, type="manual")["invoices"]
    assert manual["invoice_pdf"].startswith("https://")
    assert (manual["invoice_origin"], manual["description"]) == ("manual", "AI Gateway credits")
    assert abs(manual["created"] - time.time()) < 5


def test_past_invoice_is_no_charge(sandbox: Sandbox):
    sandbox.add_invoice(5000)

    assert sandbox.charges() == []
    assert sandbox.balance_cents() == 640.19


def test_history_can_have_pages(sandbox: Sandbox, call):
    sandbox.configure(page_parameter="honored")
    for number in range(5):
        sandbox.add_invoice(1000 + number, created=1_700_000_000 + number)

    first, last = history(call, per_page=2), history(call, per_page=2, page=3)

    assert [invoice["amount_due"] for invoice in first["invoices"]] == [1004, 1003]
    assert first["pagination"] == {"has_more": True, "page": 1, "per_page": 2, "total_count": 5}
    assert [invoice["amount_due"] for invoice in last["invoices"]] == [1000]
    assert last["pagination"]["has_more"] is False
    assert history(call, page=9)["invoices"] == []


def test_history_ignores_the_page_as_documented(sandbox: Sandbox, call):
    sandbox.configure(per_page=1)
    for _ in range(2):
        sandbox.add_invoice(1000)

    assert history(call, page=2, per_page=50) == history(call, page="some") == history(call)
    assert history(call)["pagination"] == {"has_more": True, "page": 1, "per_page": 1, "total_count": 2}


@pytest.mark.parametrize("parameter", ["page", "per_page"])
def test_history_can_refuse_a_page(sandbox: Sandbox, call, parameter):
    sandbox.configure(page_parameter="refused")

    refused = call("GET", "invoice-history", params={parameter: 1})

    assert refused.status_code == 400
    assert repr(parameter) in refused.json()["errors"][0]["message"]
    assert history(call, type="manual")["invoices"] == []


def test_history_can_lag_behind(sandbox: Sandbox, call, topup):
    sandbox.configure(history_lag_seconds=1.5)
    invoice_id = topup().json()["result"]["payment_intent_id"]

    assert history(call)["invoices"] == []
    assert history(call)["pagination"]["total_count"] == 0
    assert call("POST", "topup/status", json={"payment_intent_id": invoice_id}).status_code == 200
    assert len(sandbox.charges()) == 1
    time.sleep(1.55)
    assert [invoice["id"] for invoice in history(call)["invoices"]] == [invoice_id]


def test_invoice_can_lack_fields(sandbox: Sandbox, call):
    sandbox.add_invoice(1000, without="id,created")

    (invoice,) = history(call)["invoices"]

    assert not {"id", "created"} & set(invoice)


@pytest.mark.parametrize(
    "path",
    [
        "invoice-history?type=automatic",
        "invoice-history?type=",
        "invoice-history?type=auto&type=manual",
        "invoice-history?page=0",
        "invoice-history?per_page=some",
        "usage-history",
        "usage-history?value_grouping_window=week",
        "usage-history?value_grouping_window=day&start_time=yesterday",
        "usage-history?value_grouping_window=day&end_time=",
        "usage-history?value_grouping_window=day&end_time=nan",
    ],
)
def test_bad_query_is_refused(sandbox: Sandbox, call, path):
    sandbox.configure(page_parameter="honored")

    assert call("GET", path).status_code == 400


def test_usage_history_covers_the_requested_time(call):
    query = {"value_grouping_window": "hour", "start_time": 7_200_000, "end_time": 14_400_000}

    windows = call("GET", "usage-history", params=query).json()["result"]["history"]

    assert [window["start_time"] for window in windows] == [7_200_000, 10_800_000, 14_400_000]


def test_usage_history_of_all_time_is_bounded(call):
    query = {"value_grouping_window": "hour", "start_time": -1e300, "end_time": 1e300}

    assert len(call("GET", "usage-history", params=query).json()["result"]["history"]) == 1000


@pytest.mark.parametrize(("grouping", "least", "most"), [("day", 1, 5), ("hour", 1 / 24, 5 / 24)])
def test_usage_history_is_dollars_a_day_and_repeatable(call, grouping, least, most):
    query = {
        "value_grouping_window": grouping,
        "start_time": 1_790_000_000_000,
        "end_time": 1_792_000_000_000,
    }

    first, again = (call("GET", "usage-history", params=query).json()["result"] for _ in range(2))

    dollars = [window["aggregated_value"] for window in first["history"]]
    assert first == again
    assert all(least <= value < most for value in dollars)
    assert len(set(dollars)) > len(dollars) / 2
    assert any(value != round(value, 2) for value in dollars), "no fraction of a cent"


def test_spending_limit_can_be_deleted_but_not_set(sandbox: Sandbox, call):
    config = {"amount": 5000, "duration": "monthly", "strategy": "fixed"}
    sandbox.configure(spending_limit={"enabled": True, "config": config})

    assert call("GET", "spending-limit").json()["result"]["config"] == config
    assert call("POST", "spending-limit", json=config).status_code == 403
    assert call("DELETE", "spending-limit").status_code == 200
    assert call("GET", "spending-limit").json()["result"]["enabled"] is False


def test_auto_topup_is_written_by_dashboard_sessions_only(sandbox: Sandbox, call):
    before = call("GET", "topup/config").json()

    assert call("POST", "topup/config", json={"amount": 2000, "threshold": 500}).status_code == 403
    assert call("DELETE", "topup/config").status_code == 403
    assert call("GET", "topup/config").json() == before


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/accounts/0123456789abcdef0123456789abcdef/ai-gateway/billing/nothing",
        "/accounts/0123/topup",
        "/%0A",
    ],
)
def test_unknown_path_is_not_found_in_an_envelope(sandbox: Sandbox, path):
    response = requests.get(sandbox.base_url + path, timeout=5)

    assert response.status_code == 404
    assert response.json()["errors"][0]["code"] == 7003


@pytest.mark.parametrize("account_id", ["0123", "0123456789ABCDEF0123456789ABCDEF", "g" * 32])
def test_malformed_account_id_is_not_found(call, account_id):
    assert call("GET", "credit-balance", account_id=account_id).status_code == 404


def test_wrong_method_is_refused_in_an_envelope(call):
    response = call("PUT", "topup/config", json={})

    assert response.status_code == 405
    assert response.headers["Allow"] == "GET, POST, DELETE"
    assert response.json()["success"] is False


def test_responses_carry_the_headers_of_cloudflare(sandbox: Sandbox, call):
    sandbox.configure_server(clock_offset_seconds=3600)

    headers = call("GET", "credit-balance").headers

    assert re.fullmatch(r"[0-9a-f]{16}-[A-Z]{3}", headers["cf-ray"])
    assert re.fullmatch(r'"default";r=1199;t=\d+', headers["Ratelimit"])
    assert headers["Ratelimit-Policy"] == '"default";q=1200;w=300'
    assert abs(parsedate_to_datetime(headers["Date"]).timestamp() - time.time() - 3600) < 5
