"""Charges a card at most once for one task of one Dag run, whatever fails, however often it is run again.

The charge cannot be made idempotent: the API takes no key. So an intent is written down before it is sent,
and whoever finds an intent without an end looks for the invoice before anything is sent again.

A top-up moves on step by step, and each step may be taken by another process.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.errors import (
    CfBillingError,
    CfBillingInvalidRequestError,
    CfBillingMalformedResponseError,
    CfBillingNotSentInTimeError,
    CfBillingOutcomeUnknownError,
    CfBillingRateLimitError,
    CfBillingUnavailableError,
)
from airflow_provider_cfbilling.api.money import cents_and_dollars
from airflow_provider_cfbilling.api.wire import SendBy
from airflow_provider_cfbilling.charging.errors import NeedsAPersonError, NotChargedError, StillPendingError
from airflow_provider_cfbilling.charging.guards import check_order
from airflow_provider_cfbilling.charging.journal import Intent, Journal, Record
from airflow_provider_cfbilling.charging.order import TopupOrder
from airflow_provider_cfbilling.charging.progress import Progress, intent_of, topup_of
from airflow_provider_cfbilling.charging.reconcile import CLOCK_TOLERANCE_SECONDS, Sighting, look_for
from airflow_provider_cfbilling.charging.settlement import Settlement, settlement_of

# From the moment before an intent is written to the first byte of its charge. A process that was frozen for
# longer must not send: the next try may have taken over.
SEND_WITHIN_SECONDS = 5.0
# How often an intent is written that came too late to be sent.
MOST_INTENTS = 3
# How often the clocks are compared, where the answer comes too late to compare them.
MOST_CLOCK_READINGS = 3
# How often one try may charge anew after a charge that proved not to have been made.
MOST_REPOSTS = 1

WHERE_TO_LOOK = "the invoices on the AI Gateway page of the Cloudflare dashboard (Credits Available, Manage)"

# What a later look may not meet again.
_PASSING = (CfBillingUnavailableError, CfBillingRateLimitError, CfBillingMalformedResponseError)


class TopupProtocol:
    """One top-up of one task of one Dag run.

    :param client_of: returns the client for an account.
    :param account_id: the account to top up.
    :param journal: where it is written down what was done.
    :param window_seconds: how long a charge whose answer was lost is looked for. One that is listed, or made,
        later than that would be charged again: this is the one assumption.
    :param wait_seconds: how long one try waits for the settlement; None: it does not wait.
    :param log: told what is known, what was done, whether money moved and what comes next.
    """

    def __init__(
        self,
        client_of: Callable[[str], CfBillingClient],
        account_id: str,
        order: TopupOrder,
        journal: Journal,
        *,
        window_seconds: float,
        wait_seconds: float | None,
        log: logging.Logger,
    ) -> None:
        self._client_of = client_of
        self._account_id = account_id
        self._order = order
        self._journal = journal
        self._window_seconds = window_seconds
        self._wait_seconds = wait_seconds
        self._log = log
        self._fresh = self._half_a_window()

    def begin(self, *, first_try: bool, began_at: float) -> Progress:
        """Find out what earlier tries have done.

        :param began_at: when the Dag run began, in Unix seconds.
        :raises CfBillingInvalidRequestError: the window could end while a charge is under way.
        """
        least = SEND_WITHIN_SECONDS + self._client_of(self._account_id).read_timeout
        if self._window_seconds <= least:
            raise CfBillingInvalidRequestError(
                f"unknown_outcome_window is {self._window_seconds:g} s, but a charge may be under way for "
                f"{least:g} s (the connection's read_timeout, and {SEND_WITHIN_SECONDS:g} s to send it): "
                "make the window longer, or read_timeout shorter."
            )
        record = self._journal.read()
        if record is None and not first_try:
            self._log.info(
                "Nothing is known of the earlier tries: looking for a charge since the Dag run began."
            )
            return Progress(
                Record("started"), began_at=began_at, window_ends_at=time.time() + self._window_seconds
            )
        if record is None:
            record = Record("started")
            self._journal.write(record)
        if record.state == "completed":
            return Progress(record, outcome="already_completed")
        if record.state == "submitted":
            return Progress(record, outcome="resumed")
        return Progress(record)

    def is_done(self, progress: Progress) -> bool:
        """Tell whether there is nothing left to do in this try."""
        submitted = progress.record.state == "submitted" and self._wait_seconds is None
        return submitted or progress.record.state == "completed"

    def result(self, progress: Progress) -> dict[str, Any]:
        """Return what became of the top-up, without secrets."""
        record = progress.record
        topup = {name: value for name, value in topup_of(record).items() if name != "invoice_pdf"}
        return {
            **topup,
            "status": "completed" if record.state == "completed" else "pending",
            "amount_cents": intent_of(record).amount_cents,
            "account_id": intent_of(record).account_id,
            "outcome": progress.outcome,
        }

    def advance(self, progress: Progress) -> Progress:
        """Take the next step.

        :raises BalanceIsEnough: the balance guard says no.
        :raises CfBillingError: this try has failed. A later one knows what this one did.
        """
        progress = replace(progress, idle=False)
        if progress.began_at is not None:
            return self._suspect(progress, progress.began_at)
        match progress.record.state:
            case "intent":
                return self._reconcile(progress)
            case "submitted":
                return self._settle(progress)
        return self._charge(progress)

    def _suspect(self, progress: Progress, began_at: float) -> Progress:
        """Take it that an earlier try has charged at any time since the Dag run began."""
        client = self._client_of(self._account_id)
        for _ in range(MOST_CLOCK_READINGS):
            asked_at = time.time()
            try:
                now = client.get_invoice_history("manual").answered_at.timestamp()
            except _PASSING as error:
                return self._absorbed(error, progress)
            here = time.time()
            if here - asked_at < CLOCK_TOLERANCE_SECONDS:  # what took longer says little about the clocks
                break
        # Where this machine's clock is behind Cloudflare's, Airflow's need not be: never later than began_at.
        ahead = min(0.0, now - here)
        intent = Intent(self._account_id, self._order.amount_cents, at=began_at + ahead)
        record = Record("intent", intent, first_intent=intent)
        return replace(progress, record=record, began_at=None, window_ends_at=now + self._window_seconds)

    def _charge(self, progress: Progress) -> Progress:
        """Check, write down the intent, and charge."""
        client = self._client_of(self._account_id)
        if progress.record.first_intent:
            sighting = self._look_back(client, progress.record.first_intent)
            if sighting.matches:  # before any check: this charge is in the balance and in the budget
                return self._adopt(progress, sighting, progress.record.first_intent)
        check_order(client, self._order)
        for _ in range(MOST_INTENTS):
            first_intent, asked = progress.record.first_intent, time.monotonic()
            sighting = self._look_back(client, first_intent)
            if first_intent and sighting.matches:
                return self._adopt(progress, sighting, first_intent)
            if self._fresh.is_past():
                break
            send_by = SendBy.within(SEND_WITHIN_SECONDS)
            progress = self._intend(progress, sighting, late_by=time.monotonic() - asked)
            try:
                return self._send(client, progress, send_by)
            except CfBillingNotSentInTimeError as error:
                self._log.warning("%s. Looking again, and writing the intent anew.", error)
        self._note(replace(progress.record, state="not_charged"))
        raise NotChargedError("This machine is too slow to charge safely. Nothing was charged")

    def _half_a_window(self) -> SendBy:
        """Return until when this process may charge for what it knows now.

        Without a journal no refused write stops a process that was frozen while the next try charged. But
        that one looks for a whole window first, and finds what was charged in the first half.
        """
        return SendBy.within(self._window_seconds / 2)

    def _look_back(self, client: CfBillingClient, first_intent: Intent | None) -> Sighting:
        """Look at the history, in which a charge given up for lost may have come to light."""
        if first_intent and first_intent.account_id != self._account_id:
            earlier = look_for(self._client_of(first_intent.account_id), first_intent)
            return earlier if earlier.matches else look_for(client, None)
        return look_for(client, first_intent)

    def _intend(self, progress: Progress, sighting: Sighting, late_by: float) -> Progress:
        """Write the intent down. Where that fails, nothing may be sent: another try may have taken over."""
        earlier = progress.record
        amount_cents = self._order.amount_cents
        intent = Intent(self._account_id, amount_cents, sighting.at, sighting.invoices, late_by)
        record = Record("intent", intent, earlier.first_intent or intent, earlier.posts + 1)
        self._journal.write(record)
        return replace(progress, record=record)

    def _send(self, client: CfBillingClient, progress: Progress, send_by: SendBy) -> Progress:
        """Charge the card: the one place that does."""
        order, record = self._order, progress.record
        self._log.info("All checks passed. Charging %s.", cents_and_dollars(order.amount_cents))
        started = time.monotonic()
        try:
            topup = client.create_topup(order.amount_cents, order.payment_method_id, send_by=send_by)
        except CfBillingNotSentInTimeError:
            raise
        except CfBillingOutcomeUnknownError as error:
            self._log.warning(
                "The charge was sent and its answer was lost: %s. Looking for its invoice.", error
            )
            ended_at = intent_of(record).latest_at + time.monotonic() - started
            return replace(progress, window_ends_at=ended_at + self._window_seconds)
        except CfBillingError:
            self._log.info("Cloudflare did not accept the charge: nothing was charged.")
            self._note(replace(record, state="not_charged"))
            raise
        card = f"{topup.brand or 'the card'} ending in {topup.last4}" if topup.last4 else "the payment method"
        self._log.info("Cloudflare accepted top-up %s; it charges %s.", topup.payment_intent_id, card)
        return self._submitted(progress, topup.to_dict(), "charged")

    def _reconcile(self, progress: Progress) -> Progress:
        """Look whether the charge of an intent was made."""
        record = progress.record
        intent = intent_of(record)
        window_ends_at = progress.window_ends_at or intent.latest_at + self._window_seconds
        progress = replace(progress, window_ends_at=window_ends_at)
        self._fresh = self._half_a_window()
        try:
            sighting = look_for(self._client_of(intent.account_id), intent)
        except _PASSING as error:
            return self._absorbed(error, progress)
        if sighting.matches:
            return self._adopt(progress, sighting, intent)
        left = window_ends_at - sighting.at
        if left > 0:
            self._log.info("No invoice of the charge so far; for %.0f s more one may appear.", left)
            return replace(progress, idle=True)
        if not sighting.complete:
            raise NeedsAPersonError(
                "A charge was sent and its answer was lost, and the invoice history does not reach back to "
                "it, or holds an invoice without id or date: whether the card was charged cannot be told. "
                f"It is not sent again; look at {WHERE_TO_LOOK}"
            )
        return self._proven_not_charged(progress)

    def _proven_not_charged(self, progress: Progress) -> Progress:
        record = replace(progress.record, state="not_charged")
        self._log.info("No invoice has appeared in %.0f s: nothing was charged.", self._window_seconds)
        self._note(record)
        if progress.reposts >= MOST_REPOSTS:
            raise NotChargedError("The charge was lost twice and was not made. Nothing was charged")
        return replace(progress, record=record, window_ends_at=None, reposts=progress.reposts + 1)

    def _adopt(self, progress: Progress, sighting: Sighting, intent: Intent) -> Progress:
        """Take the invoice that the charge of ``intent`` must have made."""
        if len(sighting.matches) > 1:
            raise NeedsAPersonError(
                f"Each of the invoices {', '.join(sighting.matches)} can be this top-up; which it is cannot "
                f"be told. Nothing is charged again; look at {WHERE_TO_LOOK}"
            )
        (invoice_id,) = sighting.matches
        self._log.info(
            "Top-up %s is the charge whose answer was lost: the card was charged once.", invoice_id
        )
        topup = {"payment_intent_id": invoice_id, "onboarding": None, "brand": None, "last4": None}
        adopted = replace(progress, record=replace(progress.record, intent=intent))
        return self._submitted(adopted, topup, "adopted")

    def _submitted(self, progress: Progress, topup: dict[str, Any], outcome: str) -> Progress:
        record = replace(progress.record, state="submitted", topup=topup)
        self._note(record)
        return replace(progress, record=record, outcome=outcome, window_ends_at=None)

    def _settle(self, progress: Progress) -> Progress:
        """Look whether the top-up is paid."""
        record = progress.record
        give_up_at = progress.give_up_at or time.time() + (self._wait_seconds or 0)
        progress = replace(progress, give_up_at=give_up_at)
        payment_intent_id = topup_of(record)["payment_intent_id"]
        try:
            settlement = settlement_of(self._client_of(intent_of(record).account_id), payment_intent_id)
        except _PASSING as error:
            self._log.warning("Could not see how the top-up is doing, and will look again: %s", error)
            settlement = Settlement(is_paid=False)
        if settlement.invoice_pdf:
            record = replace(record, topup={**topup_of(record), "invoice_pdf": settlement.invoice_pdf})
            progress = replace(progress, record=record)
        if settlement.is_paid:
            self._log.info("Top-up %s is completed: the credits are there.", payment_intent_id)
            record = replace(record, state="completed")
            self._note(record)
            return replace(progress, record=record)
        if time.time() >= give_up_at:
            raise StillPendingError(
                f"Top-up {payment_intent_id} was accepted and is pending after {self._wait_seconds:g} s. The "
                f"card may ask for 3-D Secure, or was declined: look at {WHERE_TO_LOOK}. It is not charged "
                "again; a retry goes on waiting for it"
            )
        return replace(progress, idle=True)

    def _absorbed(self, error: CfBillingError, progress: Progress) -> Progress:
        """Live with a look that failed, as long as the window is open."""
        if progress.window_ends_at is not None and time.time() > progress.window_ends_at:
            raise error
        self._log.warning("Could not look for the charge, and will look again: %s", error)
        return replace(progress, idle=True)

    def _note(self, record: Record) -> None:
        """Write down what is known. Where that fails, a later try finds it out from the invoices."""
        try:
            self._journal.write(record)
        except Exception as error:
            self._log.warning("Could not write down that the top-up is %s: %s", record.state, error)
