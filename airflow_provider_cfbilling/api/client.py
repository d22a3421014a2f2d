"""One method for each endpoint of the AI Gateway Billing API.

Not here, because API tokens may not do it (Cloudflare responds with 403): creating or deleting the automatic
top-up's configuration, which is for the dashboard only, and setting the legacy spending limit.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal

from airflow_provider_cfbilling import validation
from airflow_provider_cfbilling.api.errors import (
    CfBillingAuthenticationError,
    CfBillingError,
    CfBillingOutcomeUnknownError,
    CfBillingPaymentDeclinedError,
    CfBillingPermissionError,
    CfBillingRateLimitError,
)
from airflow_provider_cfbilling.api.http.envelope import result_of
from airflow_provider_cfbilling.api.http.reader import AnyModel, read
from airflow_provider_cfbilling.api.http.send_tracking import SendDeadline
from airflow_provider_cfbilling.api.http.transport import ReadResponse, Transport
from airflow_provider_cfbilling.api.models import (
    CreditBalance,
    InvoiceHistory,
    InvoicePreview,
    SpendingLimit,
    Topup,
    TopupConfig,
    TopupEligibility,
    TopupLimits,
    TopupStatus,
    UsageHistory,
)
from airflow_provider_cfbilling.api.settings import Settings

_AFTER_A_DECLINE = (
    "Ask the card's bank, or set another card on the AI Gateway page of the Cloudflare dashboard (Credits "
    "Available, Manage), then run this again"
)

_READ = "AI Gateway Read"
_WRITE = "AI Gateway Write"


class CfBillingClient:
    """Cloudflare's AI Gateway Billing API for one account.

    Every method raises a :class:`~airflow_provider_cfbilling.api.errors.CfBillingError`. All but
    :meth:`create_topup` only read, and are tried again when Cloudflare cannot be reached.

    :param read_settings: returns the settings as they are now, None if they cannot be read: the credentials
        may have been renewed while a task waits.
    """

    def __init__(
        self,
        settings: Settings,
        transport: Transport | None = None,
        read_settings: Callable[[], Settings | None] = lambda: None,
    ) -> None:
        self.account_id = settings.account_id
        self._settings = settings
        self._transport = transport or Transport(settings)
        self._read_settings = read_settings
        self._root = f"/accounts/{settings.account_id}/ai-gateway/billing"

    def for_account(self, account_id: str) -> "CfBillingClient":
        """Return a client for another account with the same credentials, over the same connections."""
        settings = replace(self._settings, account_id=account_id)
        return CfBillingClient(settings, self._transport, self._read_settings)

    @property
    def read_timeout(self) -> float:
        """Seconds from the first byte of a request to the last byte of its response."""
        return self._settings.read_timeout

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def create_topup(
        self, amount_cents: int, payment_method_id: str | None = None, *, send_by: SendDeadline | None = None
    ) -> Topup:
        """Charge a card, now. Two calls are two charges: the API takes no idempotency key.

        Sent once and never again. How it ends is one of three:

        - it returns: Cloudflare accepted the charge;
        - it raises ``CfBillingOutcomeUnknownError``: the card may have been charged;
        - it raises another ``CfBillingError``: proven that nothing was charged.

        :param amount_cents: at least 1000 ($10.00).
        :param payment_method_id: Stripe payment method to charge instead of the account's default.
        :param send_by: the time after which it must not be sent any more.
        """
        body: dict[str, Any] = {"amount": validation.amount_cents(amount_cents)}
        if method := validation.stripe_id("payment_method_id", payment_method_id):
            body["payment_method_id"] = method
        reply = self._transport.send_once(f"{self._root}/topup", body, send_by)
        try:
            with _needs(_WRITE):
                return Topup.read(result_of(reply))
        except CfBillingError as error:
            if reply.proves_refusal:
                refusal = error.extended("Nothing was charged")
                if isinstance(error, CfBillingPaymentDeclinedError):
                    refusal = refusal.extended(_AFTER_A_DECLINE)
                raise refusal from None
            raise CfBillingOutcomeUnknownError(
                f"{error.message}. Whether the card was charged is not known",
                status=reply.status,
                codes=error.codes,
                request_id=reply.request_id,
                retry_after_seconds=reply.retry_after_seconds,
            ) from error

    def get_topup_status(self, payment_intent_id: str) -> TopupStatus:
        """Return whether a top-up has settled. A POST that only reads; it needs "AI Gateway Write"."""
        name = "payment_intent_id"
        body = {name: validation.required(name, validation.stripe_id(name, payment_intent_id))}
        with _needs(_WRITE):
            response = self._read("POST", "/topup/status", json=body)
        return read(TopupStatus, response.result)

    def get_topup_config(self) -> TopupConfig:
        """Return the automatic top-up's configuration and whether it works."""
        return self._get(TopupConfig, "/topup/config")

    def get_topup_limits(self) -> TopupLimits:
        """Return the smallest and the largest top-up of this account.

        From ``topup/eligibility``, of which only the limits are documented, else from the deprecated
        ``topup/limits``. Either may be missing.
        """
        try:
            return self._get(TopupEligibility, "/topup/eligibility").manual_topup.limits
        except (CfBillingAuthenticationError, CfBillingRateLimitError):
            raise  # the other endpoint would say the same
        except CfBillingError:
            return self._get(TopupLimits, "/topup/limits")

    def get_credit_balance(self) -> CreditBalance:
        """Return the balance, and whether a default payment method exists."""
        return self._get(CreditBalance, "/credit-balance")

    def get_invoice_history(
        self, type: Literal["auto", "manual", "all"] = "all", *, page: int = 1
    ) -> InvoiceHistory:
        """Return past invoices.

        :param type: automatic top-ups, manual ones, or all.
        :param page: which page, from 1. The response is paginated, but the reference names no parameter for
            it, so that ``pagination.page`` of the response may differ.
        """
        kind = validation.choice("type", type, ("auto", "manual", "all")) or "all"
        params: dict[str, str | int] = {"type": kind} if page == 1 else {"type": kind, "page": page}
        response = self._get_response("/invoice-history", **params)
        return read(InvoiceHistory, response.result, server_time=response.server_time)

    def get_invoice_preview(self) -> InvoicePreview:
        """Return the upcoming invoice."""
        return self._get(InvoicePreview, "/invoice-preview")

    def get_usage_history(
        self,
        window: Literal["day", "hour"],
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> UsageHistory:
        """Return what was spent, in cents. (The API itself says dollars here, and cents everywhere else.)

        :param window: the length of one entry.
        :param start: from when, with a time zone.
        :param end: until when, with a time zone.
        """
        window_ = validation.required("window", validation.choice("window", window, ("day", "hour")))
        params: dict[str, str | int] = {"value_grouping_window": window_}
        for name, value in (("start", start), ("end", end)):
            if at := validation.timestamp(name, value):
                params[f"{name}_time"] = int(at.timestamp() * 1000)
        response = self._get_response("/usage-history", **params)
        return read(UsageHistory, response.result, server_time=response.server_time)

    def get_spending_limit(self) -> SpendingLimit:
        """Return the account's legacy spending limit."""
        return self._get(SpendingLimit, "/spending-limit")

    def _get(self, model: type[AnyModel], path: str, **params: str | int) -> AnyModel:
        return read(model, self._get_response(path, **params).result)

    def _get_response(self, path: str, **params: str | int) -> ReadResponse:
        with _needs(_READ):
            return self._read("GET", path, params=params)

    def _read(self, method: str, path: str, **arguments: Any) -> ReadResponse:
        """Read, again with credentials that have been renewed since they were read, if these are refused."""
        try:
            return self._transport.read(method, self._root + path, **arguments)
        except (CfBillingAuthenticationError, CfBillingPermissionError):
            if not self._renew():
                raise
            return self._transport.read(method, self._root + path, **arguments)

    def _renew(self) -> bool:
        """Read the settings again, and tell whether they have changed. The account stays the same."""
        latest = self._read_settings()
        if latest is None:
            return False
        latest = replace(latest, account_id=self.account_id)
        if latest == self._settings:
            return False
        self._settings, self._transport = latest, Transport(latest)
        return True


@contextmanager
def _needs(permission: str) -> Iterator[None]:
    try:
        yield
    except CfBillingPermissionError as error:
        raise error.extended(f'The API token needs the permission "{permission}"') from None
    except CfBillingAuthenticationError as error:
        if error.reason is not None:  # its message says already what is wrong
            raise
        # The credentials may be fine, but for other accounts or permissions only.
        needed = f'The API token must be valid and hold "{permission}" on this account'
        raise error.extended(needed) from None
