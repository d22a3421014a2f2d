"""The connection form, "Test connection" and the links of a task, as a person sees them in a browser."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from airflow_provider_cfbilling.get_provider_info import get_provider_info
from airflow_provider_cfbilling.sandbox import Sandbox
from tests.chromium import needs_chromium
from tests.real_airflow.browser import Pages, visit
from tests.real_airflow.deployment import AIRFLOW_VERSION, WITH_UI, Airflow, an_airflow_can_run_here

pytestmark = [
    *an_airflow_can_run_here(seconds=240),
    needs_chromium,
    pytest.mark.skipif(
        (3, 0) <= AIRFLOW_VERSION < (3, 2),
        reason="the pages of Airflow 3.0 and 3.1 are others, in which this test does not know its way",
    ),
]

TIMEOUT = 90.0
HAS_EXTRA_FIELDS = AIRFLOW_VERSION >= (3, 2)
DAG_ID = "weekly_topup"
# It polls once, and is then silent for as long as the test runs.
DAG = f"""
from datetime import UTC, datetime

from airflow.providers.common.compat.sdk import DAG
from airflow_provider_cfbilling.operators.cfbilling import CfBillingCreateTopupOperator

with DAG("{DAG_ID}", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
    CfBillingCreateTopupOperator(
        task_id="topup", cfbilling_conn_id="from_the_form", amount_cents=2500, poll_interval=600
    )
"""


@pytest.fixture(scope="module")
def airflow(running_sandbox: Sandbox) -> Iterator[Airflow]:
    running_sandbox.reset()
    with Airflow(DAG, [DAG_ID], {"AIRFLOW__CORE__TEST_CONNECTION": "Enabled"}, WITH_UI) as airflow:
        yield airflow


@pytest.fixture(scope="module")
def pages(airflow: Airflow) -> Iterator[Pages]:
    with visit(airflow) as pages:
        yield pages


def fill_in(pages: Pages, conn_id: str, sandbox: Sandbox, token: str) -> None:
    pages.new_connection(conn_id)
    pages.field("host").fill(sandbox.base_url)
    pages.field("login").fill(sandbox.account_id)
    pages.field("password").fill(token)


def test_form_shows_what_is_needed_and_nothing_else(pages: Pages) -> None:
    (connection_type,) = get_provider_info()["connection-types"]
    behaviour = connection_type["ui-field-behaviour"]
    pages.new_connection("cfbilling_default")
    assert behaviour["relabeling"] == {
        "login": "Account ID",
        "password": "API token",
        "host": "API base URL",
    }
    for name, label in behaviour["relabeling"].items():
        field = pages.form.get_by_label(label, exact=True)
        expect(field).to_be_visible()
        expect(field).to_have_attribute("name", name)
        expect(field).to_have_attribute("placeholder", behaviour["placeholders"][name])
    expect(pages.field("password")).to_have_attribute("type", "password")
    pages.screenshot("connection-form")
    for name in ("schema", "port"):
        expect(pages.field(name)).not_to_be_visible()
    for name in connection_type["conn-fields"]:
        expect(pages.extra_field(name)).to_be_visible()


@pytest.mark.parametrize(
    ("conn_id", "token", "said"),
    [
        ("from_the_form", None, "Connected. Balance: $6.40. Auto top-up: active, $20.00 below $5.00."),
        ("with_a_typo", "no-such-token", "Cloudflare refused the credentials"),
    ],
)
def test_connection_is_saved_and_tested(
    pages: Pages, airflow: Airflow, running_sandbox: Sandbox, conn_id: str, token: str | None, said: str
) -> None:
    fill_in(pages, conn_id, running_sandbox, token or running_sandbox.token)
    if HAS_EXTRA_FIELDS:
        pages.extra_field("read_timeout").fill("30")
    seen = len(running_sandbox.requests())
    assert said in pages.save_and_test(conn_id)
    assert len(running_sandbox.requests()) == seen + 1


def test_waiting_task_shows_links_without_requests(
    pages: Pages, airflow: Airflow, running_sandbox: Sandbox
) -> None:
    """The Dag uses the connection that was made in the form."""
    running_sandbox.configure(topup_outcome="requires_action")
    airflow.trigger(DAG_ID)
    airflow.wait_until("it has seen its invoice", lambda: "invoice_pdf" in airflow.xcoms(DAG_ID), TIMEOUT)
    (charge,) = running_sandbox.charges()
    seen = len(running_sandbox.requests())
    pages.open_task(DAG_ID)
    for name, address in {
        "Cloudflare dashboard": f"https://dash.cloudflare.com/{running_sandbox.account_id}/ai/ai-gateway",
        "Invoice (PDF)": f"https://invoices.example.com/{charge.invoice_id}.pdf",
    }.items():
        expect(pages.page.get_by_role("link", name=name)).to_have_attribute("href", address)
    pages.screenshot("task-links")
    assert airflow.task(DAG_ID).state == "running"
    assert len(running_sandbox.requests()) == seen
