"""A Cloudflare kept in memory, and clients that stop before each request and wait for how it goes."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.errors import (
    CfBillingInvalidRequestError,
    CfBillingNotFoundError,
    CfBillingNotSentInTimeError,
    CfBillingOutcomeUnknownError,
    CfBillingUnavailableError,
)
from airflow_provider_cfbilling.api.http.send_tracking import SendDeadline
from airflow_provider_cfbilling.api.models import (
    CreditBalance,
    Invoice,
    InvoiceHistory,
    Pagination,
    Topup,
    TopupConfig,
    TopupLimits,
    TopupStatus,
)
from airflow_provider_cfbilling.sandbox import Sandbox
from tests.charging.virtual import Killed, Process, Stop, VirtualTime

# How far the date of a sick response is off.
SICK = {"an hour ahead": timedelta(hours=1), "an hour behind": timedelta(hours=-1)}


@dataclass
class Bill:
    """An invoice of the Cloudflare in memory."""

    id: str
    amount_cents: int
    due_cents: int
    created: float
    listed_at: float
    paid_at: float
    of_the_task: bool


class MemoryCloudflare:
    """Charges, and lists what was charged, by the true time.

    :param tax: what is due for one requested cent.
    :ivar balance_cents: the balance before any top-up.
    """

    per_page = 8
    balance_cents = 500.0

    def __init__(self, time: VirtualTime, tax: float = 1.0) -> None:
        self._time = time
        self._tax = tax
        self._numbers = itertools.count(1)
        self._bills: list[Bill] = []

    def charge(
        self,
        amount_cents: int,
        *,
        lands_after: float = 0.0,
        listed_after: float = 0.0,
        paid_after: float = 0.0,
        of_the_task: bool = True,
    ) -> Bill:
        """Charge the card, now or ``lands_after`` seconds; it is listed ``listed_after`` seconds from now."""
        created = self._time.now + lands_after
        listed_at = self._time.now + max(lands_after, listed_after)
        due = int(amount_cents * self._tax)
        number = next(self._numbers)
        bill = Bill(f"in_{number}", amount_cents, due, created, listed_at, created + paid_after, of_the_task)
        self._bills.append(bill)
        return bill

    def use_up_credits(self) -> None:
        self.balance_cents -= self.get_credit_balance().balance_cents

    def charges_of_the_task(self) -> list[str]:
        """The charges it has made, and those under way."""
        return [bill.id for bill in self._bills if bill.of_the_task]

    def count(self) -> int:
        return len(self._bills)

    def is_paid(self, bill_id: str) -> bool:
        return any(bill.id == bill_id and bill.paid_at <= self._time.now for bill in self._bills)

    @property
    def client(self) -> Any:
        return self

    def keep_time(self) -> None:
        pass

    # what a client can do

    def get_credit_balance(self) -> CreditBalance:
        paid = sum(bill.amount_cents for bill in self._bills if bill.paid_at <= self._time.now)
        unset = TopupConfig(None, None, None, None, None)
        return CreditBalance(self.balance_cents + paid, True, None, unset, None)

    def get_topup_limits(self) -> TopupLimits:
        return TopupLimits(min_cents=1000, max_cents=100_000, currency="usd")

    def get_topup_status(self, payment_intent_id: str) -> TopupStatus:
        paid = self.is_paid(payment_intent_id)
        return TopupStatus(payment_intent_id, "completed" if paid else "pending")

    def get_invoice_history(self, type: str, *, page: int = 1) -> InvoiceHistory:
        listed = [bill for bill in self._bills if max(bill.listed_at, bill.created) <= self._time.now]
        listed.sort(key=lambda bill: int(bill.created), reverse=True)
        end = page * self.per_page
        return InvoiceHistory(
            tuple(self._invoice(bill) for bill in listed[end - self.per_page : end]),
            Pagination(
                has_more=len(listed) > end, page=page, per_page=self.per_page, total_count=len(listed)
            ),
            server_time=datetime.fromtimestamp(int(self._time.now), UTC),  # a Date knows no fractions
        )

    def _invoice(self, bill: Bill) -> Invoice:
        blank: dict[str, Any] = dict.fromkeys(Invoice.__dataclass_fields__)
        known = {
            "id": bill.id,
            "amount_due_cents": bill.due_cents,
            "created_at": datetime.fromtimestamp(int(bill.created), UTC),
            "status": "paid" if self.is_paid(bill.id) else "open",
        }
        return Invoice(**{**blank, **known})


class SandboxCloudflare:
    """The same, over real HTTP."""

    def __init__(self, time: VirtualTime, sandbox: Sandbox, client: CfBillingClient) -> None:
        self._time, self._sandbox, self.client = time, sandbox, client

    def keep_time(self) -> None:
        self._sandbox.configure_server(clock_offset_seconds=self._time.passed)

    def charge(self, amount_cents: int, *, of_the_task: bool) -> None:
        """Let a person top up."""
        self.keep_time()
        self._sandbox.add_invoice(amount_cents)

    def lose(self, kind: Any, when: Any, *, listed_after: float = 0.0) -> None:
        """Lose the response to the next charge, which is made if ``when`` is ``after``."""
        self._sandbox.configure(history_lag_seconds=listed_after)
        self._sandbox.fault("createTopup", kind, when)

    def use_up_credits(self) -> None:
        self._sandbox.configure(balance_cents=0)

    def decline(self) -> None:
        self._sandbox.configure(next_topup_outcome="declined")

    def charges_of_the_task(self) -> list[str]:
        return [charge.invoice_id for charge in self._sandbox.charges()]

    def count(self) -> int:
        return len(self._sandbox.invoices())

    def is_paid(self, bill_id: str) -> bool:
        settled = (invoice.settles_at for invoice in self._sandbox.invoices() if invoice.id == bill_id)
        return any(at is not None and at <= self._time.now for at in settled)


class WatchedClient:
    """A client whose process stops before each request, and waits for how it goes.

    :param latest: until when, by the true time, a charge must be listed.
    :param may_be_sick: whether a response may carry a wrong date.
    """

    account_id = "0123456789abcdef0123456789abcdef"
    read_timeout = 60.0

    def __init__(
        self,
        cloudflare: Any,
        process: Process,
        time: VirtualTime,
        latest: Callable[[Process], float],
        may_be_sick: Callable[[], bool] = lambda: False,
    ) -> None:
        self.cloudflare = cloudflare
        self._may_be_sick = may_be_sick
        self.client = cloudflare.client
        self.process, self.time, self._latest = process, time, latest

    def get_credit_balance(self) -> CreditBalance:
        return self._query(self.client.get_credit_balance)

    def get_topup_limits(self) -> TopupLimits:
        return self._query(self.client.get_topup_limits)

    def get_topup_status(self, payment_intent_id: str) -> TopupStatus:
        return self._query(lambda: self.client.get_topup_status(payment_intent_id))

    def get_invoice_history(self, type: str, *, page: int = 1) -> InvoiceHistory:
        return self._query(lambda: self.client.get_invoice_history(type, page=page), "history")

    def _query(self, query: Callable[[], Any], kind: Literal["query", "history"] = "query") -> Any:
        how = self.process.meet(Stop(kind))
        if how == "fails":
            raise CfBillingUnavailableError("Cloudflare could not respond")
        if how == "not found":
            raise CfBillingNotFoundError("Invoice not found")
        if how == "waits for its turn":
            self.time.passed += 50
        self.cloudflare.keep_time()
        response = query()
        if how == "trickles in":
            self.time.passed += 50
        if how in SICK and self._may_be_sick():
            response = replace(response, server_time=response.server_time + SICK[how])
        if how == "done, frozen":
            self.process.meet(Stop("frozen"))
        return response

    def create_topup(
        self, amount_cents: int, payment_method_id: str | None, *, send_by: SendDeadline
    ) -> Topup:
        how, _, share = self.process.meet(Stop("charge")).partition(" in ")
        if how == "not sent":
            raise CfBillingUnavailableError("Connection refused. Nothing was sent")
        listed_after = max(0.0, self._latest(self.process) - self.time.now) * float(share or 0)
        self.cloudflare.keep_time()
        try:
            return self.send(how, listed_after, amount_cents, send_by)
        finally:
            if how == "timed out":
                self.time.passed += self.read_timeout
            if how.startswith("killed"):
                raise Killed

    def send(self, how: str, listed_after: float, amount_cents: int, send_by: SendDeadline) -> Topup:
        """Send the charge, unless it is too late, and let it end in the way that ``how`` says."""
        if send_by.is_past():
            raise CfBillingNotSentInTimeError("Nothing was sent")
        if how == "refused":
            raise CfBillingInvalidRequestError("Your card was declined. Nothing was charged", status=400)
        if how != "vanishes":
            lands_after = listed_after if "late" in how else 0.0
            bill = self.cloudflare.charge(
                amount_cents, lands_after=lands_after, listed_after=listed_after, paid_after=20
            )
        if how == "accepted":
            return Topup(bill.id, onboarding=None, brand="visa", last4="4242")
        raise CfBillingOutcomeUnknownError("No response. Whether it was carried out is not known")


class WatchedHttpClient(WatchedClient):
    """The same, over real HTTP."""

    def send(self, how: str, listed_after: float, amount_cents: int, send_by: SendDeadline) -> Topup:
        if how == "refused":
            self.cloudflare.decline()
        elif how == "vanishes":
            self.cloudflare.lose("reset", "before")
        elif how != "accepted":
            kind = {"timed out": "truncate", "killed": "drop"}.get(how, "reset")
            self.cloudflare.lose(kind, "after", listed_after=listed_after)
        topup: Topup = self.client.create_topup(amount_cents, "pm_sandbox_default", send_by=send_by)
        return topup
