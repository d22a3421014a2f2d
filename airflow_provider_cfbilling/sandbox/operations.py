"""The operations of the API: what each one takes, and what it returns."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from airflow_provider_cfbilling.sandbox.billing import Billing, CardDeclinedError, new_client_secret
from airflow_provider_cfbilling.sandbox.ledger import Ledger
from airflow_provider_cfbilling.sandbox.models import PAYMENT_METHODS, Account, LedgerInvoice
from airflow_provider_cfbilling.sandbox.responses import RefusalError, json_object

_WINDOW_MS = {"hour": 3_600_000, "day": 86_400_000}
_MAX_HISTORY = 1_000  # windows


@dataclass(frozen=True)
class Call:
    """One authorized request.

    :param query: the query's parameters, each with all its values.
    :param now: Unix seconds.
    """

    account_id: str
    account: Account
    query: Mapping[str, list[str]]
    content_type: str
    body: bytes
    now: float

    def json(self, **properties: type) -> dict[str, Any]:
        """The JSON body, which may hold these properties of exactly these types."""
        try:
            body = json_object(self.content_type, self.body)
        except ValueError as error:
            raise bad_request(f"Invalid body: {error}") from None
        for name, value in body.items():
            if name not in properties:
                raise bad_request(f"Invalid body: unrecognized key {name!r}")
            if type(value) is not properties[name]:
                raise bad_request(f"Invalid body: {name} must be {properties[name].__name__}")
        return body

    def parameter(self, name: str) -> str | None:
        values = self.query.get(name, [])
        if len(values) > 1:
            raise bad_request(f"Invalid query: {name} is repeated")
        return values[0] if values else None

    def refuse_parameters(self, *names: str) -> None:
        for name in names:
            if name in self.query:
                raise bad_request(f"Invalid query: unrecognized parameter {name!r}")

    def choice(self, name: str, options: tuple[str, ...], default: str | None = None) -> str:
        value = self.parameter(name)
        value = default if value is None else value
        if value not in options:
            raise bad_request(f"Invalid query: {name} must be one of {', '.join(options)}")
        return value

    def number(self, name: str, default: float) -> float:
        value = self.parameter(name)
        try:
            number = default if value is None else float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise bad_request(f"Invalid query: {name} must be a number")
        return number

    def count(self, name: str, default: int) -> int:
        number = self.number(name, default)
        if number < 1 or number != int(number):
            raise bad_request(f"Invalid query: {name} must be an integer of at least 1")
        return int(number)


def bad_request(message: str) -> RefusalError:
    return RefusalError(400, 7001, message)


class Operations:
    """Performs calls on the books."""

    def __init__(self, ledger: Ledger, billing: Billing) -> None:
        self._ledger = ledger
        self._billing = billing

    def create_topup(self, call: Call) -> object:
        body = call.json(amount=int, payment_method_id=str)
        account, amount_cents = call.account, body.get("amount")
        if amount_cents is None or amount_cents < max(1_000, account.min_cents):
            raise bad_request(f"Invalid body: amount must be at least {max(1_000, account.min_cents)}")
        if amount_cents > account.max_cents:
            raise bad_request(f"Invalid body: amount must be at most {account.max_cents}")
        payment_method = body.get("payment_method_id", account.default_payment_method)
        if payment_method is None:
            raise RefusalError(400, 7101, "No default payment method found")
        if payment_method not in PAYMENT_METHODS:
            raise RefusalError(400, 7102, "No such payment method")
        try:
            invoice = self._billing.topup(call.account_id, amount_cents)
        except CardDeclinedError:
            raise RefusalError(402, 7103, "Your card was declined (card_declined)") from None
        topup = {"client_secret": new_client_secret(), "onboarding": True, "payment_intent_id": invoice.id}
        return {**topup, "client_secret": None} if account.sparse else topup | PAYMENT_METHODS[payment_method]

    def check_topup_status(self, call: Call) -> object:
        invoice_id = call.json(payment_intent_id=str).get("payment_intent_id")
        if invoice_id is None:
            raise bad_request("Invalid body: payment_intent_id is required")
        for invoice in self._ledger.invoices(call.account_id):
            if invoice.id == invoice_id and invoice.status_visible_at <= call.now:
                status = "completed" if invoice.status == "paid" else "pending"
                return {"payment_intent_id": invoice_id, "status": status}
        raise RefusalError(404, 7002, "Invoice not found")

    def get_topup_config(self, call: Call) -> object:
        config = call.account.topup_config
        if call.account.sparse:
            optional = ("error", "disabledReason", "lastFailedAt")
            return {key: value for key, value in config.items() if value is not None or key not in optional}
        return config

    def get_topup_eligibility(self, call: Call) -> object:
        return {} if call.account.sparse else {"manual_topup": {"limits": self.get_topup_limits(call)}}

    def get_topup_limits(self, call: Call) -> object:
        account = call.account
        return {"min_cents": account.min_cents, "max_cents": account.max_cents, "currency": account.currency}

    def get_credit_balance(self, call: Call) -> object:
        account = call.account
        method = account.default_payment_method
        balance = {
            "balance": account.balance_cents,
            "has_default_payment_method": method is not None,
            "payment_method": PAYMENT_METHODS[method] if method else None,
            "topup_config": self.get_topup_config(call),
        }
        if account.sparse:
            return balance
        paid = any(invoice.status == "paid" for invoice in self._ledger.invoices(call.account_id))
        return {**balance, "first_topup_success": paid}

    def get_invoice_history(self, call: Call) -> object:
        origin = call.choice("type", ("auto", "manual", "all"), "all")
        page, per_page = 1, call.account.per_page
        if call.account.page_parameter == "honored":
            page, per_page = call.count("page", page), call.count("per_page", per_page)
        if call.account.page_parameter == "refused":
            call.refuse_parameters("page", "per_page")
        invoices = [
            invoice
            for invoice in self._ledger.invoices(call.account_id)
            if origin in ("all", invoice.origin) and invoice.visible_at <= call.now
        ]
        end = page * per_page
        shown = [_invoice_json(each, call.account) for each in invoices[end - per_page : end]]
        more = {"has_more": len(invoices) > end, "page": page, "per_page": per_page}
        return {"invoices": shown, "pagination": {**more, "total_count": len(invoices)}}

    def get_invoice_preview(self, call: Call) -> object:
        start = int(call.now) // 86_400 * 86_400
        period = {"start": start, "end": start + 86_400}
        currency = call.account.currency
        line = {"amount": 125, "currency": currency, "description": "AI Gateway usage", "period": period}
        line |= {"pricing": {"unit_amount_decimal": "0.5"}, "quantity": 250}
        amounts = {"amount_due": 125, "amount_paid": 0, "amount_remaining": 125, "currency": currency}
        bounds = {"period_start": period["start"], "period_end": period["end"]}
        return {"id": "upcoming_in_sandbox", "status": "draft", **amounts, **bounds, "invoice_lines": [line]}

    def get_usage_history(self, call: Call) -> object:
        """Spend in US dollars, the same for the same window; at most the newest thousand windows."""
        grouping = call.choice("value_grouping_window", ("day", "hour"))
        width = _WINDOW_MS[grouping]
        end_ms = call.number("end_time", call.now * 1000)
        start_ms = call.number("start_time", end_ms - 30 * width)
        if call.account.usage_days is not None:
            start_ms = max(start_ms, (call.now - call.account.usage_days * 86_400) * 1000)
        first, last = int(start_ms // width), int(end_ms // width)
        windows = range(max(first, last - _MAX_HISTORY + 1), last + 1)
        history = [
            {
                "id": f"{grouping}_{number}",
                "aggregated_value": _spend_dollars(number + int(call.account_id, 16), grouping, call.account),
                "start_time": number * width,
                "end_time": (number + 1) * width,
            }
            for number in windows
        ]
        return {"history": history}

    def get_spending_limit(self, call: Call) -> object:
        return call.account.spending_limit

    def delete_spending_limit(self, call: Call) -> object:
        unlimited = Account().spending_limit
        self._ledger.save_account(call.account_id, replace(call.account, spending_limit=unlimited))
        return {}

    def refuse_token(self, call: Call) -> object:
        raise RefusalError(403, 10403, "Forbidden: only dashboard sessions may do this")


def _spend_dollars(number: int, grouping: str, account: Account) -> float:
    """What the account spends, or from 1 to 5 US dollars a day; an hour has a 24th of that."""
    a_day = 1 + number * 7_919 % 40_000 / 10_000
    if account.spend_per_day_cents is not None:
        a_day = account.spend_per_day_cents / 100
    return round(a_day * _WINDOW_MS[grouping] / _WINDOW_MS["day"], 6)


def _invoice_json(invoice: LedgerInvoice, account: Account) -> dict[str, Any]:
    due = invoice.amount_due_cents
    paid = due if invoice.status == "paid" else 0
    required = {"amount_due": due, "amount_paid": paid, "amount_remaining": due - paid}
    fields: dict[str, Any] = {"id": invoice.id, **required, "currency": account.currency}
    fields |= {"created": invoice.created, "status": invoice.status}
    if not account.sparse:
        automatic = invoice.origin == "auto"
        fields |= {
            "created_by": "auto-topup" if automatic else "sandbox@example.com",
            "attempted": True,
            "attempt_count": 1,
            "auto_advance": invoice.status == "open",
            "description": invoice.description,
            "invoice_origin": invoice.origin,
            "invoice_pdf": f"https://invoices.example.com/{invoice.id}.pdf",
        }
    left_out = invoice.without.split(",")
    return {name: value for name, value in fields.items() if name not in left_out}


@dataclass(frozen=True)
class Operation:
    """One operation of the contract; ``write``: it needs the permission "AI Gateway Write"."""

    id: str
    perform: Callable[[Operations, Call], object]
    write: bool = False


# What follows /accounts/{account_id}/ai-gateway/billing/, and its methods.
_ROUTES: dict[str, dict[str, Operation]] = {
    "topup": {"POST": Operation("createTopup", Operations.create_topup, write=True)},
    "topup/status": {"POST": Operation("checkTopupStatus", Operations.check_topup_status, write=True)},
    "topup/config": {
        "GET": Operation("getTopupConfig", Operations.get_topup_config),
        "POST": Operation("createTopupConfig", Operations.refuse_token),
        "DELETE": Operation("deleteTopupConfig", Operations.refuse_token),
    },
    "topup/eligibility": {"GET": Operation("getTopupEligibility", Operations.get_topup_eligibility)},
    "topup/limits": {"GET": Operation("getTopupLimits", Operations.get_topup_limits)},
    "credit-balance": {"GET": Operation("getCreditBalance", Operations.get_credit_balance)},
    "invoice-history": {"GET": Operation("getInvoiceHistory", Operations.get_invoice_history)},
    "invoice-preview": {"GET": Operation("getInvoicePreview", Operations.get_invoice_preview)},
    "usage-history": {"GET": Operation("getUsageHistory", Operations.get_usage_history)},
    "spending-limit": {
        "GET": Operation("getSpendingLimit", Operations.get_spending_limit),
        "POST": Operation("createSpendingLimit", Operations.refuse_token),
        "DELETE": Operation("deleteSpendingLimit", Operations.delete_spending_limit, write=True),
    },
}

OPERATION_IDS = tuple(operation.id for methods in _ROUTES.values() for operation in methods.values())

_PATH = re.compile(r"/client/v4/accounts/(?P<account_id>[0-9a-f]{32})/ai-gateway/billing/(?P<rest>.+)")


def route(method: str, path: str) -> tuple[str, Operation]:
    """The account id and the operation of a request, or the refusal: 404, 405."""
    match = _PATH.fullmatch(path)
    if match is None or match["rest"] not in _ROUTES:
        raise RefusalError(
            404, 7003, f"Could not route to {path}, perhaps your object identifier is invalid?"
        )
    methods = _ROUTES[match["rest"]]
    if method not in methods:
        raise RefusalError(405, 7405, f"Method {method} not allowed", {"allow": ", ".join(methods)})
    return match["account_id"], methods[method]
