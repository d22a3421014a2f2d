"""Sensors: wait for the automatic top-up to break, or to work again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from airflow_provider_cfbilling.api.errors import CfBillingRateLimitError
from airflow_provider_cfbilling.base import WithHook
from airflow_provider_cfbilling.triggers.cfbilling import CfBillingTopupConfigErrorTrigger

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class CfBillingTopupConfigErrorSensor(WithHook, BaseSensorOperator):
    """Wait until the account's automatic top-up is broken, and return its configuration.

    Broken is: the last automatic charge failed, or Cloudflare has switched the automatic top-up off.

    :param wait_for: ``error``, or ``cleared`` to wait until it is not broken any more.
    :param since: ignore failures older than this, a datetime with a time zone or its ISO 8601 text. A
        failure without a date counts.
    :param deferrable: wait in the triggerer, without a worker.
    :param cfbilling_conn_id: the Airflow connection.
    :param account_id: the account to use in place of the connection's, 32 hex digits.
    """

    template_fields: Sequence[str] = ("cfbilling_conn_id", "account_id", "since")
    ui_color = "#fbad41"
    ui_fgcolor = "#1d1f20"

    def __init__(
        self,
        *,
        wait_for: Literal["error", "cleared"] = "error",
        since: datetime | str | None = None,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        cfbilling_conn_id: str = "cfbilling_default",
        account_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if wait_for not in ("error", "cleared"):
            raise ValueError(f"wait_for must be 'error' or 'cleared'; got {wait_for!r}.")
        self.wait_for = wait_for
        self.since = since
        self.deferrable = deferrable
        self.cfbilling_conn_id = cfbilling_conn_id
        self.account_id = account_id

    def execute(self, context: Context) -> Any:
        """Wait here, or look once and leave the waiting to the triggerer."""
        if not self.deferrable:
            return super().execute(context)
        first = self.poke(context)
        if first.is_done:
            return first.xcom_value
        since = self._since()
        return self.defer(
            timeout=timedelta(seconds=self.timeout),
            trigger=CfBillingTopupConfigErrorTrigger(
                cfbilling_conn_id=self.cfbilling_conn_id,
                account_id=self.account_id,
                wait_for=self.wait_for,
                since=since.isoformat() if since else None,
                poll_interval=self.poke_interval,
            ),
            method_name="execute_complete",
        )

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the configuration that the trigger saw, or fail with what stopped it."""
        match event:
            case {"status": "success", "config": dict(config)}:
                self.log.info("The automatic top-up is %s.", config.get("state"))
                return config
            case {"status": "failed", "message": str(message), "retry": bool(retry)}:
                raise AirflowException(message) if retry else AirflowFailException(message)
        raise AirflowException(f"The trigger sent an event that is not known: {event!r:.200}")

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once."""
        from airflow_provider_cfbilling.hooks.cfbilling import airflow_errors

        since = self._since()
        with airflow_errors():
            try:
                config = self.hook.get_topup_config()
            except CfBillingRateLimitError as error:
                self.log.warning("Could not look, and will look again: %s", error)
                return PokeReturnValue(is_done=False)
        self.log.info("The automatic top-up is %s.", config.state)
        broken = config.is_broken(since)
        return PokeReturnValue(is_done=broken == (self.wait_for == "error"), xcom_value=config.to_dict())

    def _since(self) -> datetime | None:
        if not self.since:
            return None
        try:
            since = datetime.fromisoformat(self.since) if isinstance(self.since, str) else self.since
            if since.tzinfo is not None:
                return since
        except (AttributeError, TypeError, ValueError):
            pass
        raise AirflowFailException(
            "since must be a datetime with a time zone, or its text such as 2026-01-31T00:00:00+00:00; "
            f"got {self.since!r:.60}."
        )
