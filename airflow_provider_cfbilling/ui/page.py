"""Draws the credits page: HTML from plain values. Everything that comes from elsewhere is escaped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import quote

from airflow_provider_cfbilling.api.money import dollars
from airflow_provider_cfbilling.ui.plots import Series, bars

if TYPE_CHECKING:
    from airflow_provider_cfbilling.api.models import Invoice, TopupConfig
    from airflow_provider_cfbilling.ui.accounts import AccountCredits

FEW_DAYS = 5
_MAX_ROWS = 5
_PAID_OR_DUE = ("paid", "open", "draft")

_STYLE = """<style>
.cfbilling { --hover: var(--chakra-colors-bg-muted, #8882);
  --muted: var(--chakra-colors-fg-muted, #52525b); --line: var(--chakra-colors-border, #e4e4e7);
  --bad: var(--chakra-colors-fg-error, #dc2626); --good: var(--chakra-colors-fg-success, #15803d);
  --bar: var(--chakra-colors-blue-solid, #2563eb); --link: var(--chakra-colors-fg-info, #2563eb); }
.cfbilling section { border: 1px solid var(--line); border-radius: 6px; padding: 16px; margin-bottom: 16px;
  background: var(--chakra-colors-bg-panel, transparent); }
.cfbilling header { display: flex; justify-content: space-between; gap: 16px; flex-wrap: wrap; }
.cfbilling h2 { font-size: 16px; font-weight: 600; overflow-wrap: anywhere; }
.cfbilling small, .cfbilling figcaption, .cfbilling th, .cfbilling dt { font-size: 12px; color: var(--muted);
  font-weight: 400; }
.cfbilling dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px;
  margin: 12px 0; }
.cfbilling dl > div { border-left: 3px solid var(--line); padding-left: 10px; }
.cfbilling dl > div.bad { border-color: var(--bad); }
.cfbilling dd b { display: block; font-size: 22px; line-height: 1.3; font-weight: 600; }
.cfbilling .bad b, .cfbilling p.bad { color: var(--bad); }
.cfbilling dd { overflow-wrap: anywhere; }
.cfbilling .plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(340px, 100%), 1fr));
  gap: 16px; }
.cfbilling svg { width: 100%; height: auto; font-size: 10px; }
.cfbilling svg .day { fill: transparent; } .cfbilling svg g:hover .day { fill: var(--hover); }
.cfbilling svg text { fill: var(--muted); } .cfbilling svg line { stroke: var(--line); }
.cfbilling .solid, .cfbilling .stripe { fill: var(--bar); background: var(--bar); }
.cfbilling .ground { fill: var(--chakra-colors-bg-panel, #fff); }
.cfbilling .striped { fill: url(#cfbilling-stripes); stroke: var(--bar); }
.cfbilling i { display: inline-block; width: 10px; height: 10px; margin: 0 4px 0 12px;
  border: 1px solid var(--bar); }
.cfbilling i.striped { background: repeating-linear-gradient(45deg, var(--bar) 0 3px, transparent 3px 6px); }
.cfbilling .table { overflow-x: auto; margin-top: 12px; } .cfbilling table { width: 100%; font-size: 14px; }
.cfbilling th, .cfbilling td { text-align: left; padding: 6px 8px; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
.cfbilling code { font-size: 12px; color: var(--muted); }
.cfbilling a { color: var(--link); } .cfbilling a:hover { text-decoration: underline; }
.cfbilling mark { background: none; color: inherit; border: 1px solid var(--line); border-radius: 4px;
  padding: 0 6px; font-size: 12px; }
.cfbilling mark.paid { color: var(--good); } .cfbilling mark.dead { color: var(--bad); }
.cfbilling p { font-size: 14px; margin-top: 6px; overflow-wrap: anywhere; }
@media (max-width: 700px) { .cfbilling svg { font-size: 15px; } .cfbilling td code { display: none; } }
</style>"""

_EMPTY = """<section><h2>No connection of type Cloudflare AI Gateway Billing that you may read</h2>
<p>Add one under Admin, Connections: the account id as login, an API token with the permission
"AI Gateway: Read" as password. A connection of a secrets backend is shown once its id is listed in
<code>[cfbilling] page_connections</code> of Airflow's configuration.</p></section>"""


def page(accounts: Sequence[AccountCredits], dag_runs: Mapping[str, tuple[str, str]], base: str) -> str:
    """Return the accounts, the worst first.

    :param dag_runs: the Dag id and the run id for each invoice that a Dag run has charged.
    :param base: the path below which Airflow is served.
    """
    cards = [_card(account, dag_runs, base) for account in sorted(accounts, key=_how_well)]
    return f'{_STYLE}<div class="cfbilling">{"".join(cards) or _EMPTY}</div>'


def _how_well(account: AccountCredits) -> tuple[int, float, str]:
    days = account.runway.days_left if account.runway else None
    left = float("inf") if days is None else days
    if account.balance is None:
        return 0, 0.0, account.conn_id
    if account.problem:
        return 1, left, account.conn_id
    needs_a_person = account.balance.topup_config.is_broken() or left < FEW_DAYS
    return 2 if needs_a_person else 3, left, account.conn_id


def _card(account: AccountCredits, dag_runs: Mapping[str, tuple[str, str]], base: str) -> str:
    age = account.age_seconds
    read = "" if age is None else f'<small data-age="{age:.0f}">Read {age:.0f} s ago</small>'
    parts = [f"<header><h2>{escape(account.conn_id)}</h2>{read}</header>"]
    if account.problem:
        kept = "" if age is None else " What is shown was read before."
        reason = account.problem.removesuffix(".")
        parts.append(f'<p class="bad" role="alert">{escape(reason)}.{kept}</p>')
    if account.balance:
        parts.append(f"<dl>{_facts(account)}</dl>")
    if account.spend or account.invoices:
        parts.append(f'<div class="plots">{_plots(account)}</div>')
    if account.invoices:
        parts.append(_invoices_table(account, dag_runs, base))
    return f"<section>{''.join(parts)}</section>"


def _facts(account: AccountCredits) -> str:
    balance, runway = account.balance, account.runway
    if balance is None:
        return ""
    card = balance.payment_method
    has_card = f"{card.brand or 'card'} ending in {card.last4}" if card and card.last4 else "a card is set"
    facts = [
        _fact(
            "Balance",
            dollars(balance.balance_cents),
            has_card if balance.has_default_payment_method else "no default card",
            is_bad=balance.balance_cents <= 0,
        )
    ]
    if runway:
        pace = {"last_7_days": "mean of the last 7 days", "last_24_hours": "the last 24 hours"}
        facts.append(
            _fact(
                "Spend per day",
                dollars(runway.spend_per_day_cents),
                pace.get(runway.pace or "", "nothing in the last 7 days"),
            )
        )
        facts.append(_days_left(account))
    facts.append(_automatic(balance.topup_config))
    return "".join(facts)


def _days_left(account: AccountCredits) -> str:
    runway = account.runway
    if runway is None or runway.days_left is None:
        return _fact("Days left", "∞", "nothing is spent")
    days = f"{runway.days_left:.1f}" if runway.days_left < 10 else f"{runway.days_left:,.0f}"
    ends = f"until {runway.ends_at:%b %-d, %Y}" if runway.ends_at else ""
    known = "" if runway.observed_days >= 7 else f", from {runway.observed_days:.1f} days of usage"
    return _fact("Days left", days, ends + known, is_bad=runway.is_below(FEW_DAYS))


def _automatic(config: TopupConfig) -> str:
    details = {
        "active": f"{dollars(config.amount_cents)} below {dollars(config.threshold_cents)}",
        "failing": config.error or "",
        "disabled": f"switched off by Cloudflare: {config.disabled_reason}",
        "unset": "set it up in the Cloudflare dashboard",
    }
    failed = config.last_failed_at if config.is_broken() else None
    since = f", {failed:%b %-d, %H:%M} UTC" if failed else ""
    detail = f"{details[config.state]}{since}"
    return _fact("Automatic top-up", config.state, detail, is_bad=config.is_broken())


def _fact(name: str, value: str, detail: str, *, is_bad: bool = False) -> str:
    kind = ' class="bad"' if is_bad else ""
    return f"<div{kind}><dt>{name}</dt><dd><b>{escape(value)}</b><small>{escape(detail)}</small></dd></div>"


def _plots(account: AccountCredits) -> str:
    days, since = account.days, account.complete_since
    topups = [
        Series("by Dags and people", "solid", _by_day(account.manual)),
        Series("automatic", "striped", _by_day(account.automatic)),
    ]
    legend = "".join(f'<i class="{each.fill}"></i>{each.name}' for each in topups)
    # Plots of what could not be read, or not so far back, would say that there was nothing.
    if since and since.astimezone(UTC).date() >= days[0]:
        legend += f" (older ones than {since:%b %-d} are in the Cloudflare dashboard)"
    spend = (
        f"<figure><figcaption>Spend per day, UTC</figcaption>"
        f"{bars('Spend', days, [Series('spent', 'solid', account.spend)])}</figure>"
    )
    charged = (
        f"<figure><figcaption>Top-ups per day, UTC{legend}</figcaption>"
        f"{bars('Top-ups', days, topups)}</figure>"
    )
    are_read = account.invoices or not account.problem
    return f"{spend if account.spend else ''}{charged if are_read else ''}"


def _by_day(invoices: Sequence[Invoice]) -> dict[date, float]:
    cents: dict[date, float] = {}
    for invoice in invoices:
        if invoice.created_at and invoice.status in _PAID_OR_DUE:
            day = invoice.created_at.astimezone(UTC).date()
            cents[day] = cents.get(day, 0.0) + invoice.amount_due_cents
    return cents


def _invoices_table(account: AccountCredits, dag_runs: Mapping[str, tuple[str, str]], base: str) -> str:
    automatic = {invoice.id for invoice in account.automatic}
    rows = "".join(
        _invoice(invoice, invoice.id in automatic, dag_runs.get(invoice.id or ""), base)
        for invoice in account.invoices[:_MAX_ROWS]
    )
    names = ("Invoice (UTC)", "Due", "Kind", "Status", "Charged by", "")
    head = "".join(f"<th>{name}</th>" for name in names)
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _invoice(invoice: Invoice, is_automatic: bool, dag_run: tuple[str, str] | None, base: str) -> str:
    status = invoice.status or "unknown"
    kind = "paid" if status == "paid" else "dead" if status not in _PAID_OR_DUE else ""
    charged_by = ""
    if dag_run:
        dag_id, run_id = dag_run
        route = f"/dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')}"
        charged_by = (
            f'<a href="{escape(base + route)}" data-route="{escape(route)}">'
            f"{escape(dag_id)}, {escape(run_id)}</a>"
        )
    pdf = invoice.invoice_pdf
    cells = (
        f"{invoice.created_at:%Y-%m-%d %H:%M} <code>{escape(invoice.id or '')}</code>",
        dollars(invoice.amount_due_cents),
        "automatic" if is_automatic else "manual",
        f'<mark class="{kind}">{escape(status)}</mark>',
        charged_by,
        f'<a href="{escape(pdf)}" target="_blank" rel="noopener noreferrer">PDF</a>' if pdf else "",
    )
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
