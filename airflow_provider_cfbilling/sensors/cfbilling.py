"""Sensors: wait for a broken automatic top-up, for the balance to cross a line, for a top-up to settle."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from airflow_provider_cfbilling.api.errors import CfBillingError, CfBillingRateLimitError
from airflow_provider_cfbilling.base import WithHook, WithTrigger, check_boolean

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_cfbilling.triggers.cfbilling import (
        CfBillingCreditBalanceTrigger,
        CfBillingTopupCompletedTrigger,
        CfBillingTopupConfigErrorTrigger,
    )
    from airflow_provider_cfbilling.triggers.looking import CfBillingWaitTrigger


class CfBillingBaseSensor(WithTrigger, WithHook, BaseSensorOperator):
    """What all sensors of this provider share.

    Triggers are imported where they are used: they cost every parse of a Dag 10 ms.

    :param deferrable: wait in the triggerer, without a worker.
    :param start_from_trigger: wait in the triggerer from the start, and succeed there too: a wait that ends
        well never needs a worker. All arguments must be known when the Dag is parsed; Airflow 3.3 and later
        also render templates of them. A mapped task (``expand``) takes a worker for its first look.
    :param cfbilling_conn_id: the Airflow connection.
    :param account_id: the account to use in place of the connection's, 32 hex digits.
    """

    template_fields: Sequence[str] = ("cfbilling_conn_id", "account_id")
    ui_color = "#fbad41"
    ui_fgcolor = "#1d1f20"

    def __init__(
        self,
        *,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        start_from_trigger: bool = False,
        cfbilling_conn_id: str = "cfbilling_default",
        account_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.start_from_trigger = check_boolean("start_from_trigger", start_from_trigger)
        self.deferrable = check_boolean("deferrable", deferrable) or start_from_trigger
        self.cfbilling_conn_id = cfbilling_conn_id
        self.account_id = account_id

    @abstractmethod
    def trigger(self, *, ends_task: bool = False) -> CfBillingWaitTrigger:
        """Return what waits in the sensor's place, and knows what it waits for."""

    def _set_start_trigger(self) -> None:
        """Let Airflow start this task in the triggerer, if so asked. At the end of ``__init__``."""
        if not self.start_from_trigger:
            return
        from airflow.triggers.base import StartTriggerArgs

        trigger_cls, trigger_kwargs = self.trigger(ends_task=True).serialize()
        for name, value in trigger_kwargs.items():
            if not isinstance(value, str | int | float | None):
                raise ValueError(
                    f"{name} must be known when the Dag is parsed where start_from_trigger is set; got "
                    f"{value!r:.60}. Use deferrable=True."
                )
        self.start_trigger_args = StartTriggerArgs(
            trigger_cls=trigger_cls,
            trigger_kwargs=trigger_kwargs,
            next_method="execute_complete",
            timeout=timedelta(seconds=self.timeout),
        )

    def execute(self, context: Context) -> Any:
        """Wait here, or look once and leave the waiting to the triggerer."""
        if not self.deferrable:
            return super().execute(context)
        first = self.poke(context)
        if first.is_done:
            return first.xcom_value
        return self.defer(
            timeout=timedelta(seconds=self.timeout),
            trigger=self.trigger(),
            method_name="execute_complete",
        )

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> Any:
        """Return what the trigger saw, or fail with what stopped it."""
        match event:
            case {"status": "success", "result": dict(result)}:
                return result
            case {"status": "failed", "message": str(message), "retry": bool(retry)}:
                raise AirflowException(message) if retry else AirflowFailException(message)
            case {"status": "trigger_error", "message": str(message)}:
                return self.execute_without_trigger(context, message)
        return self.execute_without_trigger(context, f"it sent an event that is not known: {event!r:.200}")

    def execute_without_trigger(self, context: Context, reason: str) -> Any:
        """Poke in the task: the trigger cannot."""
        self.log.warning("The trigger cannot wait, so the task waits itself: %s", reason)
        self.deferrable = False
        self.mode = "poke"
        return self.execute(context)

    def poke(self, context: Context) -> PokeReturnValue:
        """Look once."""
        from airflow_provider_cfbilling.hooks.cfbilling import airflow_errors

        waiting = self.trigger()
        try:
            waiting.check()
        except ValueError as error:
            raise AirflowFailException(str(error)) from None
        ask, *arguments = waiting.question()
        with airflow_errors():
            try:
                answer = ask(self.hook.get_conn(), *arguments)
            except CfBillingRateLimitError as error:
                self.log.warning("Poll failed, retrying: %s", error)
                return PokeReturnValue(is_done=False)
            except CfBillingError as error:
                if not waiting.is_too_early(error, self._waited_seconds(context)):
                    raise
                self.log.info("Not known yet, polling again: %s", error)
                return PokeReturnValue(is_done=False)
        self.log.info("%s", waiting.described(answer))
        result = waiting.result(answer)
        return PokeReturnValue(is_done=result is not None, xcom_value=result)

    def _waited_seconds(self, context: Context) -> float:
        """Return for how long this wait has gone on, over all its pokes."""
        ti: Any = context["ti"]
        first = getattr(
            ti, "get_first_reschedule_date", None
        )  # Airflow 3; before, start_date is the first one
        since = (first(context) if first and self.reschedule else None) or ti.start_date
        return (datetime.now(UTC) - since).total_seconds() if since else 0.0


class CfBillingTopupConfigErrorSensor(CfBillingBaseSensor):
    """Wait until the account's automatic top-up is broken, and return its configuration.

    Broken is: the last automatic charge failed, or Cloudflare has switched the automatic top-up off. Further
    parameters: :class:`CfBillingBaseSensor`.

    :param wait_for: ``error``, or ``cleared`` to wait until it is not broken any more.
    :param since: ignore failures older than this, a datetime with a time zone or its ISO 8601 text. A
        failure without a date counts.
    """

    template_fields: Sequence[str] = (*CfBillingBaseSensor.template_fields, "since")

    def __init__(
        self,
        *,
        wait_for: Literal["error", "cleared"] = "error",
        since: datetime | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if wait_for not in ("error", "cleared"):
            raise ValueError(f"wait_for must be 'error' or 'cleared'; got {wait_for!r}.")
        self.wait_for = wait_for
        self.since = since
        self._set_start_trigger()

    def trigger(self, *, ends_task: bool = False) -> CfBillingTopupConfigErrorTrigger:
        from airflow_provider_cfbilling.triggers.cfbilling import CfBillingTopupConfigErrorTrigger

        return CfBillingTopupConfigErrorTrigger(
            self.cfbilling_conn_id,
            self.account_id,
            self.poke_interval,
            wait_for=self.wait_for,
            since=self.since.isoformat() if isinstance(self.since, datetime) else self.since,
            ends_task=ends_task,
        )


class CfBillingCreditBalanceSensor(CfBillingBaseSensor):
    """Wait until the credit balance is below a line, or has come up to one, and return the balance.

    Further parameters: :class:`CfBillingBaseSensor`.

    :param below_cents: wait until the balance is lower than this: 2000 is $20.00.
    :param at_least_cents: wait until the balance is this or more. Give one of the two.
    """

    template_fields: Sequence[str] = (*CfBillingBaseSensor.template_fields, "below_cents", "at_least_cents")

    def __init__(
        self,
        *,
        below_cents: float | str | None = None,
        at_least_cents: float | str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if (below_cents is None) == (at_least_cents is None):
            raise ValueError("Give either below_cents or at_least_cents.")
        self.below_cents = below_cents
        self.at_least_cents = at_least_cents
        self._set_start_trigger()

    def trigger(self, *, ends_task: bool = False) -> CfBillingCreditBalanceTrigger:
        from airflow_provider_cfbilling.triggers.cfbilling import CfBillingCreditBalanceTrigger

        return CfBillingCreditBalanceTrigger(
            self.cfbilling_conn_id,
            self.account_id,
            self.poke_interval,
            below_cents=self.below_cents,
            at_least_cents=self.at_least_cents,
            ends_task=ends_task,
        )


class CfBillingTopupCompletedSensor(CfBillingBaseSensor):
    """Wait until a top-up is paid and its credits are there.

    Fails without a retry where the payment has failed for good. Needs the permission "AI Gateway Write".
    Further parameters: :class:`CfBillingBaseSensor`.

    :param payment_intent_id: the top-up, as ``CfBillingCreateTopupOperator`` returns it.
    """

    template_fields: Sequence[str] = (*CfBillingBaseSensor.template_fields, "payment_intent_id")

    def __init__(self, *, payment_intent_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.payment_intent_id = payment_intent_id
        self._set_start_trigger()

    def trigger(self, *, ends_task: bool = False) -> CfBillingTopupCompletedTrigger:
        from airflow_provider_cfbilling.triggers.cfbilling import CfBillingTopupCompletedTrigger

        return CfBillingTopupCompletedTrigger(
            self.cfbilling_conn_id,
            self.account_id,
            self.poke_interval,
            payment_intent_id=self.payment_intent_id,
            ends_task=ends_task,
        )
