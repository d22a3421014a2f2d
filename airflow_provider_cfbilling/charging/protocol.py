"""Charges a card at most once for one task of one Dag run, whatever fails, however often it is run again.

The charge cannot be made idempotent: the API takes no key. So an intent is recorded before it is sent, and
a try that finds an intent without an end searches for the invoice before anything is sent again.

A top-up moves on step by step, and each step may be taken by another process. Whatever ends a try after its
charge says whether money moved, and leaves a record from which the next try goes on.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.errors import (
    CfBillingError,
    CfBillingInvalidRequestError,
    CfBillingNotFoundError,
    CfBillingNotSentInTimeError,
    CfBillingOutcomeUnknownError,
    CfBillingPaymentDeclinedError,
)
from airflow_provider_cfbilling.api.http.send_tracking import SendDeadline
from airflow_provider_cfbilling.api.models import Invoice
from airflow_provider_cfbilling.api.money import cents_and_dollars
from airflow_provider_cfbilling.charging.endings import (
    ChargeUnconfirmedError,
    ConnectionUnreadableError,
    ManualReviewRequiredError,
    NotChargedError,
    PaymentFailedError,
    RecordError,
    StillPendingError,
    SupersededError,
)
from airflow_provider_cfbilling.charging.guards import check_order
from airflow_provider_cfbilling.charging.journal import ChargeIntent, Journal, Record
from airflow_provider_cfbilling.charging.order import TopupOrder
from airflow_provider_cfbilling.charging.progress import (
    Progress,
    intent_of,
    is_search_over,
    is_time_standing,
    topup_of,
)
from airflow_provider_cfbilling.charging.reconcile import (
    CLOCK_TOLERANCE_SECONDS,
    DEAD,
    ReconcileResult,
    find_candidate_invoices,
    snapshot_invoices,
)
from airflow_provider_cfbilling.charging.settlement import Settlement, settlement_of

# From the time before an intent is written to the first byte of its charge. A process that was frozen for
# longer must not send: the next try may have taken over.
SEND_WITHIN_SECONDS = 5.0
# A later try waits for so much longer before it takes over.
TAKEOVER_MARGIN_SECONDS = 1.0
# How often an intent is written that came too late to be sent.
MAX_INTENTS = 3
# How often the clocks are compared, if they disagree or the response comes too late to compare them.
MAX_CLOCK_READINGS = 3
# How often one try may charge again after a charge that proved not to have been made.
MAX_RECHARGES = 1
# Clocks that drift apart by more than this, in seconds, since the intent: one of them was set, or is wrong.
CLOCK_JUMP_SECONDS = 60.0

INVOICES = "the invoices on the AI Gateway page of the Cloudflare dashboard (Credits Available, Manage)"
UNKNOWN = f"whether the card was charged cannot be determined. It is not charged again; review {INVOICES}"


class TopupProtocol:
    """One top-up of one task of one Dag run.

    :param client_of: returns the client for an account. Not called before the record has been read.
    :param account_id: the account to top up; None: the one of the client that ``client_of(None)`` returns.
    :param read_order: returns what to charge and on which conditions. Called only when nothing has been
        charged yet: a parameter that has become invalid must not keep a try from finding out about money.
    :param journal: where it is recorded what was done.
    :param window_seconds: how long a charge whose response was lost is searched for. One that is listed, or
        made, later than that would be charged again: this is the one assumption.
    :param wait_seconds: how long one try waits for the settlement; None: it does not wait.
    :param log: reports what is known, what was done, whether money moved and what comes next.
    """

    def __init__(
        self,
        client_of: Callable[[str | None], CfBillingClient],
        account_id: str | None,
        read_order: Callable[[], TopupOrder],
        journal: Journal,
        *,
        window_seconds: float,
        wait_seconds: float | None,
        log: logging.Logger,
    ) -> None:
        self._client_of = client_of
        self._account_id = account_id
        self._read_order = read_order
        self._journal = journal
        self._window_seconds = window_seconds
        self._wait_seconds = wait_seconds
        self._log = log
        self._latest: Record | None = None
        self._warned_of_clocks = False

    def begin(self, *, cleared: bool, began_at: float) -> Progress:
        """Find out what earlier tries have done.

        :param cleared: a user has cleared the task since its first try, and with it perhaps the record.
        :param began_at: when the Dag run began, in Unix seconds.
        :raises CfBillingInvalidRequestError: the order is invalid, or the window could end while a charge is
            under way.
        :raises RecordError: the record could not be read or written.
        """
        started = Record("started", cleared=cleared)
        try:
            record = self._journal.begin(started, SEND_WITHIN_SECONDS + TAKEOVER_MARGIN_SECONDS)
        except SupersededError:
            raise
        except Exception as error:
            raise RecordError(
                f"The record of this top-up could not be read or written: {_text_of(error)}. Nothing "
                "more was sent; what was done before is in the record, from which a retry goes on"
            ) from error
        self._latest = None if record.cleared else record
        with self._saying_whether_money_moved():
            return self._begin(record, began_at)

    def _begin(self, record: Record, began_at: float) -> Progress:
        match record.state:
            case "completed":
                return Progress(record, "done", outcome="already_completed")
            case "accepted":
                return Progress(record, "settle", outcome="resumed")
            case "intent":
                return Progress(record, "reconcile")
        self._read_order()  # refuses what is invalid before any request
        self._check_window()
        if record.state == "not_charged" or not record.cleared:
            return Progress(record, "charge")
        self._log.info(
            "No record of earlier tries. Checking the invoices since the Dag run started before charging."
        )
        deadline = time.time() + self._window_seconds
        return Progress(
            record,
            "lookback",
            lookback_from=began_at,
            reconcile_deadline=deadline,
            reconcile_deadline_here=deadline,
        )

    def _check_window(self) -> None:
        least = SEND_WITHIN_SECONDS + self._client_of(self._account_id).read_timeout
        if self._window_seconds <= least:
            raise CfBillingInvalidRequestError(
                f"unknown_outcome_window is {self._window_seconds:g} s, but a charge may be under way for "
                f"{least:g} s (the connection's read_timeout, and {SEND_WITHIN_SECONDS:g} s to send it): "
                "make the window longer, or read_timeout shorter. Nothing was charged"
            )

    def is_done(self, progress: Progress) -> bool:
        """Return whether there is nothing left to do in this try."""
        return progress.phase == "done" or (progress.phase == "settle" and self._wait_seconds is None)

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

        :raises TopupNotNeeded: a guard of the order.
        :raises ChargeDeadlinePassed: the order is too old.
        :raises CfBillingError: this try has failed. A later one knows what this one did.
        """
        progress = replace(progress, should_wait=False)
        self._latest = progress.record if progress.phase != "lookback" else None
        with self._saying_whether_money_moved():
            match progress.phase:
                case "lookback":
                    return self._recover_without_record(progress)
                case "reconcile":
                    return self._reconcile(progress)
                case "settle":
                    return self._settle(progress)
            return self._charge(progress)

    def money(self) -> str:
        """Return whether money moved, as far as this try knows, and what comes next."""
        record = self._latest
        if record is None:
            return (
                "Whether an earlier try charged the card is not known yet. A retry finds out before it "
                "charges"
            )
        match record.state:
            case "intent":
                return (
                    f"A charge of {intent_of(record).amount} may have been sent: whether the card was "
                    "charged is not known yet. It is not sent again before that is known; a retry, or "
                    "clearing the task, goes on from here"
                )
            case "accepted":
                return (
                    f"Cloudflare accepted top-up {topup_of(record)['payment_intent_id']} of "
                    f"{intent_of(record).amount}: it is not charged again. A retry, "
                    "or clearing the task, resumes the wait for it"
                )
            case "completed":
                return (
                    f"Top-up {topup_of(record)['payment_intent_id']} is completed: the card was charged once"
                )
        return "Nothing was charged"

    def forget(self) -> None:
        """Remove the record: the task has succeeded, or is skipped and has sent nothing."""
        try:
            self._journal.forget()
        except Exception as error:
            self._log.warning("The record of this top-up could not be removed: %s", _text_of(error))

    def sleep(self, seconds: float) -> None:
        """Wait until the next step."""
        with self._saying_whether_money_moved():
            time.sleep(seconds)

    def log_money(self) -> None:
        """Log whether money moved, if it may have: for a try that is ended from outside."""
        if self._latest is None or self._latest.state not in ("started", "not_charged"):
            self._log.warning("%s.", self.money())

    @contextmanager
    def _saying_whether_money_moved(self) -> Iterator[None]:
        try:
            yield
        except (ManualReviewRequiredError, NotChargedError, PaymentFailedError, SupersededError):
            raise  # they say it themselves, or cannot know
        except CfBillingError as error:
            said = error.extended(self.money())
            if said is error:
                raise
            raise said from error
        except BaseException:  # timed out, killed, a bug
            self.log_money()
            raise

    def _recover_without_record(self, progress: Progress) -> Progress:
        """Take it that an earlier try has charged at any time since the Dag run began."""
        try:
            ahead, at = self._compare_clocks()
        except CfBillingError as error:
            return self._poll_again_or_raise(error, progress)
        intent = ChargeIntent(
            self._client_of(self._account_id).account_id,
            self._read_order().amount_cents,
            at=(progress.lookback_from or 0.0) + ahead,
            # If this machine's clock is behind Cloudflare's, Airflow's need not be.
            written_at=progress.lookback_from or 0.0,
        )
        return replace(
            progress,
            record=Record("intent", intent),
            phase="reconcile",
            lookback_from=None,
            reconcile_deadline=at + self._window_seconds,
        )

    def _compare_clocks(self) -> tuple[float, float]:
        """Return how far Cloudflare's clock is ahead of this machine's, and what it says, in seconds."""
        client = self._client_of(self._account_id)
        quick: list[tuple[float, float]] = []
        slow: list[tuple[float, float]] = []
        for _ in range(MAX_CLOCK_READINGS):
            requested_at = time.time()
            at = client.get_invoice_history("manual").server_time.timestamp()
            here = time.time()
            if (
                here - requested_at >= CLOCK_TOLERANCE_SECONDS
            ):  # what took longer says little about the clocks
                slow.append((at - here, at))
                continue
            if abs(at - here) <= CLOCK_TOLERANCE_SECONDS:
                return at - here, at
            quick.append((at - here, at))
        # A single response can carry any time.
        return statistics.median_low(quick or slow)

    def _charge(self, progress: Progress) -> Progress:
        """Check, record the intent, and charge."""
        client = self._client_of(self._account_id)
        record = progress.record
        if record.lost_intent:
            found = self._search_again(client, record)
            if found.candidates:  # before any check: this charge is in the balance and in the budget
                return self._adopt(progress, found, record.lost_intent)
        order = self._read_order()
        recorded_cents = None
        if record.intent and record.intent.account_id == client.account_id:
            recorded_cents = record.intent.amount_cents
        amount_cents = check_order(client, order, self._log, recorded_cents)
        # Without a fence an intent that came too late may stand where a later try has removed the record.
        for _ in range(MAX_INTENTS if self._journal.is_fenced else 1):
            started = time.monotonic()
            found = self._search_again(client, record)
            if record.lost_intent and found.candidates:
                return self._adopt(progress, found, record.lost_intent)
            send_by = SendDeadline.after(SEND_WITHIN_SECONDS)
            progress = self._write_intent(client, progress, amount_cents, found, time.monotonic() - started)
            try:
                return self._send(client, progress, amount_cents, order.payment_method_id, send_by)
            except CfBillingNotSentInTimeError as error:
                self._log.warning("%s", error)
        if self._journal.is_fenced:
            self._record_best_effort(replace(progress.record, state="not_charged"))
        raise NotChargedError(
            f"Not sent: the charge was not ready within {SEND_WITHIN_SECONDS:g} s of being recorded. Nothing "
            "was charged; Airflow may retry"
        )

    def _search_again(self, client: CfBillingClient, record: Record) -> ReconcileResult:
        """Search for a charge that was given up for lost and may have appeared late.

        :raises ManualReviewRequiredError: an invoice may turn out to be it.
        """
        lost = record.lost_intent
        if lost is None:
            return snapshot_invoices(client)
        there = client if lost.account_id == client.account_id else self._client_of(lost.account_id)
        found = find_candidate_invoices(there, lost, until=record.lost_until, ignore_dead=record.denied)
        if not found.candidates and found.living_suspects:
            earlier = f"A charge of {lost.amount} was given up for lost, or its card was declined"
            raise ManualReviewRequiredError(f"{earlier}. {_which(found.living_suspects)}: {UNKNOWN}")
        return found if found.candidates or there is client else snapshot_invoices(client)

    def _write_intent(
        self,
        client: CfBillingClient,
        progress: Progress,
        amount_cents: int,
        found: ReconcileResult,
        write_delay_seconds: float,
    ) -> Progress:
        """Record the intent. If that fails, nothing may be sent: another try may have taken over."""
        earlier = progress.record
        intent = ChargeIntent(
            client.account_id,
            amount_cents,
            at=found.at,
            written_at=time.time(),
            known_invoices=found.invoices,
            write_delay_seconds=write_delay_seconds,
        )
        record = Record(
            "intent",
            intent,
            lost_intent=earlier.lost_intent,
            lost_until=earlier.lost_until,
            charge_requests=earlier.charge_requests + 1,
            denied=earlier.denied,
        )
        self._write(record, "The charge was not sent. Nothing was charged")
        return replace(progress, record=record)

    def _write(self, record: Record, consequence: str) -> None:
        try:
            self._journal.write(record)
        except SupersededError:
            raise
        except Exception as error:
            raise RecordError(
                f"The record of this top-up could not be written: {_text_of(error)}. {consequence}"
            ) from error
        self._latest = record

    def _send(
        self,
        client: CfBillingClient,
        progress: Progress,
        amount_cents: int,
        payment_method_id: str | None,
        send_by: SendDeadline,
    ) -> Progress:
        """Charge the card: the one place that does."""
        record = progress.record
        self._log.info("All checks passed. Charging %s.", cents_and_dollars(amount_cents))
        started = time.monotonic()
        try:
            topup = client.create_topup(amount_cents, payment_method_id, send_by=send_by)
        except CfBillingNotSentInTimeError:
            raise
        except CfBillingOutcomeUnknownError as error:
            self._log.warning(
                "The charge was sent and its response was lost: %s. Searching for its invoice.", error
            )
            ended_at = intent_of(record).durable_by + time.monotonic() - started
            return replace(
                progress,
                phase="reconcile",
                reconcile_deadline=ended_at + self._window_seconds,
                reconcile_deadline_here=time.time() + self._window_seconds,
            )
        except CfBillingError as error:
            self._log.info("The charge was not made: nothing was charged.")
            denied = record.denied or error.status is not None  # else it was never sent
            refused = replace(record, state="not_charged", denied=denied)
            if isinstance(error, CfBillingPaymentDeclinedError):  # what it left may be paid later
                intent = intent_of(record)
                until = max(intent.durable_by, intent.written_at) + self._window_seconds
                refused = replace(refused, lost_intent=record.lost_intent or intent, lost_until=until)
            self._record_best_effort(refused)
            raise
        card = f"{topup.brand or 'the card'} ending in {topup.last4}" if topup.last4 else "the payment method"
        self._log.info("Cloudflare accepted top-up %s; it charges %s.", topup.payment_intent_id, card)
        return self._accepted(progress, topup.to_dict(), "charged")

    def _reconcile(self, progress: Progress) -> Progress:
        """Check whether the charge of an intent was made."""
        intent = intent_of(progress.record)
        deadline, deadline_here = progress.reconcile_deadline, progress.reconcile_deadline_here
        progress = replace(
            progress,
            reconcile_deadline=deadline or intent.durable_by + self._window_seconds,
            reconcile_deadline_here=deadline_here or intent.written_at + self._window_seconds,
        )
        is_recorded = progress.record.charge_requests > 0
        try:
            client = self._client_of(intent.account_id)
            found = find_candidate_invoices(client, intent, is_recorded=is_recorded)
        except CfBillingError as error:
            return self._poll_again_or_raise(error, progress)
        progress = self._with_clocks_checked(progress, intent, found.at)
        # One that will not be paid may be of another top-up, and this one's appear late.
        if found.living_candidates or (found.candidates and is_search_over(progress, found.at)):
            return self._adopt(progress, found, intent)
        sent = f"A charge of {intent.amount} may have been sent; its response was lost"
        if not is_recorded:
            sent = "An earlier try may have charged the card; its record is gone"
        if not is_search_over(progress, found.at):
            if is_time_standing(progress, found.at):
                stands = f"{datetime.fromtimestamp(found.at, UTC):%H:%M:%S} UTC"
                raise ManualReviewRequiredError(
                    f"{sent}. Cloudflare's responses stay dated {stands} and may be old: {UNKNOWN}"
                )
            if found.at > (progress.seen_at or 0):
                progress = replace(progress, seen_at=found.at, seen_here=time.time())
            left = max(
                (progress.reconcile_deadline or 0) - found.at,
                (progress.reconcile_deadline_here or 0) - time.time(),
            )
            self._log.info("No invoice of the charge so far; it may appear for another %.0f s.", left)
            return replace(progress, should_wait=True)
        suspects = found.suspects if is_recorded else found.living_suspects
        if suspects:
            raise ManualReviewRequiredError(f"{sent}. {_which(suspects)}: {UNKNOWN}")
        if not found.complete:
            raise ManualReviewRequiredError(
                f"{sent}, and the invoice history does not reach back to it, or holds an invoice without id "
                f"or date: {UNKNOWN}"
            )
        return self._proven_not_charged(progress, found.at)

    def _with_clocks_checked(self, progress: Progress, intent: ChargeIntent, at: float) -> Progress:
        """Report a clock that has jumped. One that went back must not prolong the search for ever.

        The search ends only when both clocks say so: one that went ahead does not shorten it.
        """
        here = time.time()
        drift = (at - here) - (intent.at - intent.written_at)
        if abs(drift) > CLOCK_JUMP_SECONDS and not self._warned_of_clocks:
            self._warned_of_clocks = True
            self._log.warning(
                "Cloudflare's clock and this machine's have moved apart by %.0f s since the charge: one of "
                "them was set or is wrong. The search for the charge ends only when both say so.",
                drift,
            )
        most = self._window_seconds
        if (progress.reconcile_deadline or 0) - at > most + CLOCK_JUMP_SECONDS:
            progress = replace(progress, reconcile_deadline=at + most)
        if (progress.reconcile_deadline_here or 0) - here > most + CLOCK_JUMP_SECONDS:
            progress = replace(progress, reconcile_deadline_here=here + most)
        return progress

    def _proven_not_charged(self, progress: Progress, at: float) -> Progress:
        lost = progress.record.lost_intent or progress.record.intent
        record = replace(progress.record, state="not_charged", lost_intent=lost, lost_until=at)
        self._log.info("No invoice has appeared in %.0f s: nothing was charged.", self._window_seconds)
        self._record_best_effort(record)
        if progress.recharges >= MAX_RECHARGES:
            raise NotChargedError(
                "Two charge requests got no response and produced no invoice. Nothing was charged; Airflow "
                "may retry"
            )
        return replace(
            progress,
            record=record,
            phase="charge",
            reconcile_deadline=None,
            reconcile_deadline_here=None,
            seen_at=None,
            seen_here=None,
            recharges=progress.recharges + (1 if record.charge_requests else 0),
        )

    def _adopt(self, progress: Progress, found: ReconcileResult, intent: ChargeIntent) -> Progress:
        """Take the invoice that the charge of ``intent`` must have made."""
        if len(found.candidates) > 1:
            ids = ", ".join(str(invoice.id) for invoice in found.candidates)
            raise ManualReviewRequiredError(
                f"Invoices {ids} all match this top-up, so which one it made cannot be determined. It is not "
                f"charged again; review {INVOICES}"
            )
        (invoice,) = found.candidates
        if invoice.status in DEAD:
            raise PaymentFailedError.of(str(invoice.id), str(invoice.status))
        is_lost = progress.phase == "reconcile" and progress.record.charge_requests > 0
        self._log.info(
            "Top-up %s is the charge %s: %s.",
            invoice.id,
            "whose response was lost" if is_lost else "that this task has made before",
            "the card was charged once" if invoice.status == "paid" else f"its invoice is {invoice.status}",
        )
        topup = {"payment_intent_id": invoice.id, "onboarding": None, "brand": None, "last4": None}
        adopted = replace(progress, record=replace(progress.record, intent=intent))
        return self._accepted(adopted, topup, "adopted")

    def _accepted(self, progress: Progress, topup: dict[str, Any], outcome: str) -> Progress:
        record = replace(progress.record, state="accepted", topup=topup)
        self._record_best_effort(record)
        return replace(
            progress,
            record=record,
            phase="settle",
            outcome=outcome,
            reconcile_deadline=None,
            reconcile_deadline_here=None,
        )

    def _settle(self, progress: Progress) -> Progress:
        """Check whether the top-up is paid."""
        record, now = progress.record, time.time()
        progress = replace(
            progress,
            settlement_deadline=progress.settlement_deadline or now + (self._wait_seconds or 0),
            not_found_deadline=progress.not_found_deadline or now + self._window_seconds,
        )
        payment_intent_id = topup_of(record)["payment_intent_id"]
        unread = None
        try:
            settlement = settlement_of(self._client_of(intent_of(record).account_id), payment_intent_id)
        except (ConnectionUnreadableError, PaymentFailedError):
            raise
        except CfBillingError as error:
            too_early = isinstance(error, CfBillingNotFoundError) and progress.may_be_unknown_yet
            if not (error.retryable or too_early):
                raise
            self._log.warning("The top-up's status could not be read, retrying: %s", error)
            settlement, unread = Settlement(is_paid=False), error
        if settlement.invoice_pdf:
            record = replace(record, topup={**topup_of(record), "invoice_pdf": settlement.invoice_pdf})
            progress = replace(progress, record=record)
        if settlement.is_paid:
            self._log.info("Top-up %s is completed: the credits are there.", payment_intent_id)
            record = replace(record, state="completed")
            self._record_best_effort(record)
            return replace(progress, record=record, phase="done")
        if progress.is_settlement_overdue and unread:
            raise StillPendingError(
                f"Whether top-up {payment_intent_id} is paid could not be read at the end of its "
                f"{self._wait_seconds:g} s: {unread}"
            )
        if progress.is_settlement_overdue:
            raise StillPendingError(
                f"Top-up {payment_intent_id} is pending after {self._wait_seconds:g} s. The card may need "
                f"3-D Secure, or was declined: review {INVOICES}"
            )
        return replace(progress, should_wait=True)

    def _poll_again_or_raise(self, error: CfBillingError, progress: Progress) -> Progress:
        """Live with a history that could not be read, as long as the window is open."""
        if time.time() > (progress.reconcile_deadline_here or 0):
            raise ChargeUnconfirmedError(
                f"The invoice history, which shows whether the card was charged, could not be read: {error}",
                retryable=error.retryable,
            ) from error
        self._log.warning("The invoice history could not be read, retrying: %s", error)
        return replace(progress, should_wait=True)

    def _record_best_effort(self, record: Record) -> None:
        """Record what is known. If that fails, a later try finds it out from the invoices."""
        self._latest = record
        try:
            self._journal.write(record)
        except Exception as error:
            self._log.warning("Could not record that the top-up is %s: %s", record.state, _text_of(error))


def _text_of(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _which(suspects: Sequence[Invoice]) -> str:
    ids = ", ".join(str(invoice.id) for invoice in suspects)
    invoices = f"Invoice {ids} is" if len(suspects) == 1 else f"Invoices {ids} are"
    return f"{invoices} from that time, due with another amount or currency than requested"
