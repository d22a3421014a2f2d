"""From an Airflow connection to a client of the AI Gateway Billing API."""

import json
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal

from airflow.providers.common.compat.sdk import BaseHook, Connection

from airflow_provider_cfbilling import validation
from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.errors import CfBillingError, CfBillingInvalidRequestError
from airflow_provider_cfbilling.api.models import (
    CreditBalance,
    InvoiceHistory,
    InvoicePreview,
    SpendingLimit,
    Topup,
    TopupConfig,
    TopupLimits,
    TopupStatus,
    UsageHistory,
)
from airflow_provider_cfbilling.api.money import dollars
from airflow_provider_cfbilling.api.settings import DEFAULT_BASE_URL, Settings
from airflow_provider_cfbilling.forecast import Runway, read_spending
from airflow_provider_cfbilling.get_provider_info import get_provider_info

_NUMBERS = ("connect_timeout", "read_timeout", "max_attempts")
_EXTRAS = ("email", *_NUMBERS)


class CfBillingHook(BaseHook):
    """Reads Cloudflare's AI Gateway Billing API, and tops up credits, through an Airflow connection.

    Every method may raise a :class:`~airflow_provider_cfbilling.api.errors.CfBillingError`.

    :param cfbilling_conn_id: the Airflow connection: ``login`` is the account id, ``password`` the API
        token, ``host`` the base URL if it is not Cloudflare's.
    :param account_id: the account to use in place of the connection's.
    """

    conn_name_attr = "cfbilling_conn_id"
    default_conn_name = "cfbilling_default"
    conn_type = "cfbilling"
    hook_name = "Cloudflare AI Gateway Billing"

    def __init__(
        self, cfbilling_conn_id: str = default_conn_name, account_id: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.cfbilling_conn_id = cfbilling_conn_id
        self.account_id = account_id
        self._clients: dict[str | None, CfBillingClient] = {}

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the connection form for Airflow before 3.2; later ones read it from the provider info."""
        info: dict[str, Any] = get_provider_info()
        (connection_type,) = info["connection-types"]
        form: dict[str, Any] = connection_type["ui-field-behaviour"]
        return {**form, "hidden_fields": form["hidden-fields"]}

    def get_conn(self) -> CfBillingClient:
        """Return the client of the hook's account."""
        return self.get_client(None)

    def get_client(self, account_id: str | None) -> CfBillingClient:
        """Return the client of another account of the same connection; None: of the hook's account."""
        if not self._clients:
            first = CfBillingClient(self._settings(), read_settings=self._latest_settings)
            self._clients = {None: first, first.account_id: first}
        key = validation.account_id(account_id)
        if key not in self._clients:
            self._clients[key] = self._clients[None].for_account(str(key))
        return self._clients[key]

    def _settings(self) -> Settings:
        conn_id = connection_id(self.cfbilling_conn_id)
        return settings_from_connection(self.get_connection(conn_id), self.account_id)

    def _latest_settings(self) -> Settings | None:
        """Return what the connection says now, for credentials that were renewed while a task waits."""
        try:
            return self._settings()
        except Exception as error:  # what was refused says more
            self.log.warning("The connection cannot be read again: %s", type(error).__name__)
            return None

    def create_topup(self, amount_cents: int, payment_method_id: str | None = None) -> Topup:
        """Charge a card, now: two calls are two charges. See :meth:`CfBillingClient.create_topup`.

        In a task use ``CfBillingCreateTopupOperator``, which checks first and waits for the result.

        :param amount_cents: at least 1000 ($10.00).
        :param payment_method_id: Stripe payment method to charge instead of the account's default.
        """
        return self.get_conn().create_topup(amount_cents, payment_method_id)

    def get_topup_status(self, payment_intent_id: str) -> TopupStatus:
        """Return whether a top-up has settled. Needs the permission "AI Gateway Write"."""
        return self.get_conn().get_topup_status(payment_intent_id)

    def get_topup_config(self) -> TopupConfig:
        """Return the automatic top-up's configuration and whether it works."""
        return self.get_conn().get_topup_config()

    def get_topup_limits(self) -> TopupLimits:
        """Return the smallest and the largest top-up of this account, from whichever endpoint has them."""
        return self.get_conn().get_topup_limits()

    def get_credit_balance(self) -> CreditBalance:
        """Return the balance, and whether a default payment method exists."""
        return self.get_conn().get_credit_balance()

    def get_invoice_history(self, type: Literal["auto", "manual", "all"] = "all") -> InvoiceHistory:
        """Return past invoices: automatic top-ups, manual ones, or all."""
        return self.get_conn().get_invoice_history(type)

    def get_invoice_preview(self) -> InvoicePreview:
        """Return the upcoming invoice."""
        return self.get_conn().get_invoice_preview()

    def get_usage_history(
        self,
        window: Literal["day", "hour"],
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> UsageHistory:
        """Return what was spent per ``window``, in cents, from ``start`` until ``end`` (with a time zone)."""
        return self.get_conn().get_usage_history(window, start, end)

    def get_runway(self) -> Runway:
        """Return how long the credits last at the pace at which they are spent. Two requests."""
        client = self.get_conn()
        balance = client.get_credit_balance()
        return read_spending(client).runway(balance.balance_cents)

    def get_spending_limit(self) -> SpendingLimit:
        """Return the account's legacy spending limit."""
        return self.get_conn().get_spending_limit()

    def test_connection(self) -> tuple[bool, str]:
        """Read the balance once and say what was found, or what is wrong."""
        try:
            with closing(CfBillingClient(replace(self._settings(), max_attempts=1))) as client:
                balance = client.get_credit_balance()
        except CfBillingError as error:
            return False, str(error)
        return True, (
            f"Connected. Balance: {dollars(balance.balance_cents)}. "
            f"Auto top-up: {_auto_topup_described(balance.topup_config)}."
        )


def connection_id(cfbilling_conn_id: object) -> str:
    """Return the id of a connection; nothing given is the default one."""
    return validation.text("cfbilling_conn_id", cfbilling_conn_id) or CfBillingHook.default_conn_name


def settings_from_connection(connection: Connection, account_id: str | None = None) -> Settings:
    """Return what the client needs, or refuse the connection and name the field that is wrong.

    :raises CfBillingInvalidRequestError: before any request.
    """
    try:
        extra = _extra(connection)
        _refuse_unused(connection)
        return Settings(
            account_id=validation.account_id(account_id) or connection.login or "",
            secret=connection.password or "",
            email=None if validation.is_absent(extra.get("email")) else extra["email"],
            base_url=connection.host or DEFAULT_BASE_URL,
            **{name: extra[name] for name in _NUMBERS if not validation.is_absent(extra.get(name))},
        )
    except CfBillingInvalidRequestError as error:
        raise CfBillingInvalidRequestError(
            f"Connection {connection.conn_id!r} cannot be used (login is the account id, password the API "
            f"token, host the API base URL): {error.message}"
        ) from None


def _extra(connection: Connection) -> dict[str, Any]:
    # Not extra_dejson: it talks to the task's supervisor to mask secrets, and none is allowed here.
    try:
        extra = json.loads(connection.extra or "{}")
    except ValueError:
        extra = None
    if not isinstance(extra, dict):
        raise CfBillingInvalidRequestError("extra is not a JSON object.")
    unknown = [name for name in extra if name not in _EXTRAS]
    if unknown:
        raise CfBillingInvalidRequestError(
            f"extra holds {', '.join(map(repr, unknown))}; it may hold only {', '.join(_EXTRAS)}."
        )
    return extra


def _refuse_unused(connection: Connection) -> None:
    for name in ("port", "schema"):
        if getattr(connection, name):
            raise CfBillingInvalidRequestError(
                f"{name} is not used: write the whole base URL into host, such as {DEFAULT_BASE_URL} "
                "(in a connection URI percent-encoded)."
            )


def _auto_topup_described(config: TopupConfig) -> str:
    match config.state:
        case "disabled":
            return f"switched off by Cloudflare ({config.disabled_reason})"
        case "failing":
            return f"failing ({config.error})"
        case "active":
            return f"active, {dollars(config.amount_cents)} below {dollars(config.threshold_cents)}"
    return "not set up"
