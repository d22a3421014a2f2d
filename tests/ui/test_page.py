"""What the credits page draws, from plain values."""

import re
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import pytest

from airflow_provider_cfbilling.api.models import (
    CreditBalance,
    Invoice,
    PaymentMethod,
    TopupConfig,
    UsageWindow,
)
from airflow_provider_cfbilling.forecast import runway
from tests.real_airflow.deployment import AIRFLOW_VERSION

pytestmark = pytest.mark.skipif(AIRFLOW_VERSION < (3, 1), reason="the credits page needs Airflow 3.1")

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
HOSTILE = """<script>alert('1')</script>"&"""
ACTIVE = TopupConfig(2000, 500, None, None, None)


def invoice(**details: Any) -> Invoice:
    blank = dict.fromkeys(Invoice.__dataclass_fields__)
    given = {"id": "in_1", "amount_due_cents": 2625, "created_at": NOW, "status": "paid", **details}
    return Invoice(**{**blank, **given})


def account(conn_id: str = "cfbilling_default", **details: Any) -> Any:
    from airflow_provider_cfbilling.ui.accounts import AccountCredits

    balance_cents = details.pop("balance_cents", 2400)
    days = tuple(NOW.date() - timedelta(days=back) for back in reversed(range(30)))
    usage = [
        UsageWindow("day", 240, NOW - timedelta(days=back + 1), NOW - timedelta(days=back))
        for back in range(9)
    ]
    config = details.pop("config", ACTIVE)
    card = details.pop("card", PaymentMethod("visa", "4242"))
    given = {
        "balance": CreditBalance(balance_cents, card is not None, card, config, None),
        "runway": runway(balance_cents, usage, NOW),
        "spend": dict.fromkeys(days, 240.0),
        "days": days,
        "age_seconds": 20.4,
        **details,
    }
    return AccountCredits(conn_id, **given)


def page(*accounts: Any, dag_runs: dict[str, tuple[str, str]] | None = None, base: str = "") -> str:
    from airflow_provider_cfbilling.ui.page import page

    return page(accounts, dag_runs or {}, base)


class Tags(HTMLParser):
    """The tags, the links and the text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[dict[str, str | None]] = []
        self.words = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "a":
            self.links.append(dict(attrs))
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.words += f"{data} "


def test_card_says_all_that_is_known() -> None:
    words = Tags(page(account(manual=(invoice(invoice_pdf="https://invoices.example.com/1.pdf"),)))).words
    for said in ("$24.00", "visa ending in 4242", "$2.40", "until Dec 5, 2026", "Read 20 s ago"):
        assert said in words
    for said in ("active", "$20.00 below $5.00", "2026-11-25 12:00", "in_1", "$26.25", "paid", "PDF"):
        assert said in words


def test_worst_comes_first() -> None:
    failing = TopupConfig(2000, 500, "card_declined", None, NOW)
    html = page(
        account("healthy", balance_cents=99_999),
        account("fine", balance_cents=2400),
        account("broken", balance_cents=9900, config=failing),
        account("running_out", balance_cents=500),
        account("used_up", balance_cents=-3),
        account("unread", balance=None, runway=None, spend={}, age_seconds=None, problem="Refused"),
        account("unreachable", problem="Cloudflare has not responded within 5 s."),
    )
    assert re.findall(r"<h2>(\w+)</h2>", html) == [
        *("unread", "unreachable", "used_up", "running_out", "broken", "fine", "healthy"),
    ]


def test_broken_automatic_topup_is_explained() -> None:
    failing = account(config=TopupConfig(2000, 500, "card_declined", None, NOW))
    assert "card_declined, Nov 25, 12:00 UTC" in page(failing)
    disabled = account(config=TopupConfig(2000, 500, None, "too_many_failures", None))
    assert "switched off by Cloudflare: too_many_failures" in page(disabled)


def test_everything_is_escaped() -> None:
    hostile = account(
        HOSTILE,
        config=TopupConfig(1, 1, HOSTILE, None, None),
        card=PaymentMethod(HOSTILE, HOSTILE),
        problem=HOSTILE,
        manual=(invoice(id=HOSTILE, status=HOSTILE, invoice_pdf=HOSTILE),),
    )
    html = page(hostile, dag_runs={HOSTILE: (HOSTILE, HOSTILE)}, base=HOSTILE)
    tags = Tags(html)
    assert "script" not in tags.tags
    assert tags.words.count("alert(") >= 7
    assert [link for link in tags.links if (link.get("href") or "").startswith("javascript")] == []


def test_dag_run_is_linked_below_the_base_path() -> None:
    html = page(
        account(manual=(invoice(), invoice(id="in_2"))),
        dag_runs={"in_1": ("topup", "manual__2026-11-25T07:56:16+00:00")},
        base="/airflow",
    )
    (link,) = Tags(html).links
    route = "/dags/topup/runs/manual__2026-11-25T07%3A56%3A16%2B00%3A00"
    assert (link["data-route"], link["href"]) == (route, f"/airflow{route}")


def test_kinds_of_topups_differ_without_color() -> None:
    html = page(account(manual=(invoice(),), automatic=(invoice(id="in_2", amount_due_cents=2100),)))
    assert '<rect class="solid"' in html
    assert '<rect class="striped"' in html
    assert "<title>Nov 25, 2026: $26.25 by Dags and people, $21.00 automatic</title>" in html
    assert "<title>Nov 24, 2026: none</title>" in html
    assert html.count("<title>Nov 24, 2026: $2.40 spent</title>") == 1
    assert "<td>automatic</td>" in html
    assert "<td>manual</td>" in html


def test_dead_invoices_are_listed_and_not_plotted() -> None:
    html = page(account(automatic=(invoice(status="void"),)))
    assert '<mark class="dead">void</mark>' in html
    assert 'aria-label="Top-ups: $0.00 in 30 days"' in html


def test_no_spend_has_no_end() -> None:
    assert "nothing is spent" in page(account(runway=runway(2400, (), NOW), spend={}))


def test_young_account_says_how_little_is_known() -> None:
    usage = (UsageWindow("1", 10, NOW - timedelta(hours=36), NOW),)
    assert "from 1.5 days of usage" in page(account(runway=runway(2400, usage, NOW)))


def test_missing_card_is_said() -> None:
    assert "no default card" in page(account(card=None))


def test_problem_keeps_what_was_read_before() -> None:
    html = page(account(problem="Cloudflare has not responded within 5 s."))
    assert "Cloudflare has not responded within 5 s. What is shown was read before." in html
    assert "$24.00" in html


def test_plot_says_how_far_back_it_reaches() -> None:
    invoices = (invoice(),)
    since = NOW - timedelta(days=13)
    assert "older ones than Nov 12 are in the Cloudflare dashboard" in page(
        account(manual=invoices, complete_since=since)
    )
    assert "older ones" not in page(account(manual=invoices, complete_since=NOW - timedelta(days=40)))


def test_what_was_never_read_is_not_drawn_as_nothing() -> None:
    html = page(account(problem="HTTP 503"))
    assert 'aria-label="Spend' in html
    assert 'aria-label="Top-ups' not in html
    html = page(account(problem="HTTP 503", runway=None, spend={}, manual=(invoice(),)))
    assert 'aria-label="Spend' not in html
    assert 'aria-label="Top-ups' in html


def test_without_a_connection_it_says_what_to_do() -> None:
    html = page()
    assert "Add one under Admin, Connections" in html
    assert "page_connections" in html


def test_axis_fits_every_amount() -> None:
    from airflow_provider_cfbilling.ui.plots import Series, bars

    for cents in (0.01, 99, 101, 399, 401, 999, 1001, 123_456, 10**9):
        svg = bars("Spend", [date(2026, 11, 25)], [Series("spent", "solid", {date(2026, 11, 25): cents})])
        (height,) = re.findall(r'<rect class="solid" .* height="([\d.]+)"', svg)
        assert 1 <= float(height) <= 118
