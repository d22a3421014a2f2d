"""The sandbox's page in a real browser: it shows what happens, and its buttons do what they say."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from airflow_provider_cfbilling.sandbox import Sandbox
from tests.chromium import browser, keep_screenshot, needs_chromium
from tests.raw_servers import client_of

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def window(running_sandbox: Sandbox) -> Iterator[Page]:
    with browser(1100, 860) as context:
        yield context.new_page()


@pytest.fixture
def page(sandbox: Sandbox, window: Page) -> Page:
    window.goto(sandbox.url)
    expect(window.locator("#dollars")).to_have_text("$6.40")
    return window


def press(page: Page, button: str) -> None:
    page.get_by_role("button", name=button, exact=True).click()


def test_charge_and_its_requests_are_shown(sandbox: Sandbox, page: Page) -> None:
    with client_of(sandbox) as client:
        client.create_topup(2500)
    expect(page.locator("#dollars")).to_have_text("$31.40")
    (charge,) = sandbox.charges()
    for cell in ("$25.00", "2500", "$26.25", "manual", "paid", charge.invoice_id):
        expect(page.locator("#charges").get_by_text(cell, exact=True)).to_be_visible()
    expect(page.locator("#requests").get_by_text("POST createTopup")).to_be_visible()
    keep_screenshot(page, "sandbox-page")


@pytest.mark.parametrize(
    ("button", "shown_at", "shown"),
    [
        ("Break auto top-up", "#auto", "failing"),
        ("Disable auto top-up", "#auto", "disabled"),
        ("Lower balance to $1", "#dollars", "$1.00"),
        ("Perform auto top-up", "#charges", "auto"),
        ("Next top-up: declined", "#next", "declined"),
        ("Next top-up: declined, leaves a void invoice", "#next", "declined"),
        ("Next top-up: needs 3-D Secure", "#next", "requires action"),
        ("Next top-up: loses its response", "#next-note", "reset after createTopup"),
        ("Next top-up: charged, but gets a 408", "#next-note", "status 408 after createTopup"),
        ("Next top-up: not charged, and gets a 499", "#next-note", "status 499 before createTopup"),
        ("Limits endpoints: gone", "#next-note", "getTopupEligibility"),
        ("Next response: dated an hour ahead", "#next-note", "clock before any request"),
        ("Account credit: $26.25 (pays for a $25 top-up)", "#unusual", "credit_cents: 2625"),
        ("Fee: off", "#unusual", "fee_percent: 0"),
        ("New invoices: listed after 5 s", "#unusual", "history_lag_seconds: 5"),
        ("Top-up status: unknown for 5 s", "#unusual", "status_lag_seconds: 5"),
        ("Invoice history: refuses page", "#unusual", "page_parameter: refused"),
    ],
)
def test_button_does_what_it_says(page: Page, button: str, shown_at: str, shown: str) -> None:
    expect(page.locator(shown_at)).not_to_contain_text(shown)
    press(page, button)
    expect(page.locator(shown_at)).to_contain_text(shown)
    press(page, "Start afresh")
    expect(page.locator(shown_at)).not_to_contain_text(shown)


def test_unusual_settings_are_usual_again(page: Page) -> None:
    press(page, "Fee: off")
    expect(page.locator("#unusual")).to_have_text("fee_percent: 0")
    press(page, "All this as usual")
    expect(page.locator("#unusual")).to_be_empty()


def test_every_button_is_obeyed(page: Page) -> None:
    for button in page.get_by_role("button").all():
        with page.expect_response(lambda response: response.request.method != "GET") as response:
            button.click()
        assert response.value.ok


def test_what_breaks_is_said(page: Page) -> None:
    page.route("**/sandbox/state", lambda route: route.abort())
    expect(page.locator("#trouble")).to_contain_text("The sandbox does not respond")
    page.unroute("**/sandbox/state")
    expect(page.locator("#trouble")).to_be_empty()
