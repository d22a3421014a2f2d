"""What the API does with money: the one place in the sandbox that charges."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from airflow_provider_cfbilling.sandbox.ledger import Ledger
from airflow_provider_cfbilling.sandbox.models import (
    Account,
    AutoTopup,
    LedgerInvoice,
    Origin,
    PastInvoice,
)

_UNSET_CONFIGS: dict[str, dict[str, Any]] = {
    "null": {"amount": None, "threshold": None, "error": None, "disabledReason": None, "lastFailedAt": None},
    "zero": {"amount": 0, "threshold": 0, "error": None, "disabledReason": None, "lastFailedAt": 0},
    "absent": {"amount": None, "threshold": None},
}


class CardDeclinedError(Exception):
    """The card was refused at once: no charge, and no invoice that will ever be paid."""


class Billing:
    """Top-ups of the ledger's accounts.

    :param clock: gives Unix seconds.
    """

    def __init__(self, ledger: Ledger, clock: Callable[[], float]) -> None:
        self._ledger = ledger
        self._clock = clock

    def topup(self, account_id: str, amount_cents: int, origin: Origin = "manual") -> LedgerInvoice:
        """Charge a card: one invoice, one charge. Raises :class:`CardDeclinedError`."""
        account = self._account(account_id)
        outcome = account.next_topup_outcome or account.topup_outcome
        if account.next_topup_outcome:
            self._ledger.save_account(account_id, replace(account, next_topup_outcome=None))
        now = self._clock()
        invoice = LedgerInvoice(
            id=_new_invoice_id(),
            account_id=account_id,
            amount_cents=amount_cents,
            amount_due_cents=account.amount_due_cents(amount_cents),
            status="open",
            origin=origin,
            created=int(now),
            visible_at=now + account.history_lag_seconds,
            status_visible_at=now + account.status_lag_seconds,
        )
        if outcome == "declined":
            if account.declined_leaves != "nothing":
                self._ledger.add_invoice(replace(invoice, status=account.declined_leaves))
            raise CardDeclinedError
        if outcome != "requires_action":
            invoice = replace(invoice, settles_at=now + account.settle_seconds, settles_as=outcome)
        with self._ledger.transaction():
            self._ledger.add_invoice(invoice)
            self._ledger.add_charge(invoice, now)
        return invoice

    def add_past_invoice(self, account_id: str, past: PastInvoice) -> LedgerInvoice:
        """Put an invoice into the history of an account."""
        self._account(account_id)
        created = self._clock() if past.created is None else past.created
        due = past.amount_cents if past.amount_due_cents is None else past.amount_due_cents
        invoice = LedgerInvoice(
            id=_new_invoice_id(),
            account_id=account_id,
            amount_cents=past.amount_cents,
            amount_due_cents=due,
            status=past.status,
            origin=past.origin,
            created=int(created),
            visible_at=created,
            description=past.description,
            without=past.without,
        )
        self._ledger.add_invoice(invoice)
        return invoice

    def change_auto_topup(self, account_id: str, change: AutoTopup) -> LedgerInvoice | None:
        """Let something happen to the auto top-up of an account; ``perform`` gives the invoice, if any."""
        if change.action == "perform":
            configured = self._account(account_id).topup_config.get("amount")
            try:
                return self.topup(account_id, change.amount_cents or int(configured or 1000), "auto")
            except CardDeclinedError:
                change = replace(change, action="break")
        account = self._account(account_id)
        config = self._changed_config(account.topup_config, change)
        self._ledger.save_account(account_id, replace(account, topup_config=config))
        return None

    def _changed_config(self, config: dict[str, Any], change: AutoTopup) -> dict[str, Any]:
        if change.action == "unset":
            return _UNSET_CONFIGS[change.style]
        if change.action == "recover":
            return {**config, "error": None, "disabledReason": None, "lastFailedAt": None}
        if change.action == "disable":
            return {**config, "disabledReason": change.reason}
        failed_at = self._clock() if change.last_failed_at is None else change.last_failed_at
        unit = 1000 if change.milliseconds else 1
        return {**config, "error": change.error, "lastFailedAt": int(failed_at * unit)}

    def _account(self, account_id: str) -> Account:
        account = self._ledger.account(account_id)
        if account is None:
            raise ValueError(f"no account {account_id!r}")
        return account


def new_client_secret() -> str:
    """A stand-in for a Stripe credential, easy to find in places that must not hold it."""
    return f"seti_sandbox{secrets.token_hex(8)}_secret_{secrets.token_hex(12)}"


def _new_invoice_id() -> str:
    return f"in_1{secrets.token_hex(11)}"
