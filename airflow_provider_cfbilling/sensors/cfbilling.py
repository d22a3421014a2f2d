"""Sensors: wait for a broken automatic top-up, for credits that run out, for a top-up to settle."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)

from airflow_provider_cfbilling import validation
from airflow_provider_cfbilling.api.errors import CfBillingError
from airflow_provider_cfbilling.base import CfBillingHookMixin, DeferrableMixin, trigger_timed_out
from airflow_provider_cfbilling.errors import airflow_errors
from airflow_provider_cfbilling.polling import Outage

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_cfbilling.triggers.base import CfBillingWaitTrigger
    from airflow_provider_cfbilling.triggers.cfbilling import (
        CfBillingCreditBalanceTrigger,
        CfBillingRunwayTrigger,
        CfBillingTopupCompletedTrigger,
        CfBillingTopupConfigErrorTrigger,
    )


class CfBillingBaseSensor(DeferrableMixin, CfBillingHookMixin, BaseSensorOperator):
    """What all sensors of this provider share.

    Triggers are imported where they are used: they cost every parse of a Dag 10 ms.

    :param deferrable: wait in the triggerer, without a worker.
    :param start_from_trigger: wait in the triggerer from the start, and succeed there too: a wait that ends
        well never needs a worker. All arguments must be known when the Dag is parsed; Airflow 3.3 and later
        also render templates of them. A mapped task (``expand``) takes a worker for its first poll. Airflow
        3.1 and 3.2 ignore it: there it is the same as ``deferrable``.
    :param cfbilling_conn_id: the Airflow connection.
    :param account_id: the account to use in place of the connection's, 32 hex digits.
    """

    template_fields: Sequence[str] = ("cfbilling_conn_id", "account_id")
    _began = 0.0  # when its execution did, in monotonic seconds
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
        self.start_from_trigger = validation.boolean("start_from_trigger", start_from_trigger)
        self.deferrable = validation.boolean("deferrable", deferrable) or start_from_trigger
        self.cfbilling_conn_id = cfbilling_conn_id
        self.account_id = account_id

    @abstractmethod
    def trigger(self, *, ends_task: bool = False) -> CfBillingWaitTrigger:
        """Return what waits in the sensor's place, and knows what it waits for."""

    def _trigger_arguments(self, *, ends_task: bool) -> dict[str, Any]:
        """Return the arguments that all triggers share."""
        return {
            "cfbilling_conn_id": self.cfbilling_conn_id,
            "account_id": self.account_id,
            "poll_interval": self.poke_interval,
            "ends_task": ends_task,
        }

    def _set_start_trigger(self) -> None:
        """Let Airflow start this task in the triggerer, if requested. At the end of ``__init__``."""
        if not self.start_from_trigger:
            return
        from airflow.triggers.base import StartTriggerArgs

        trigger = self.trigger(ends_task=True)
        with suppress(ValueError):  # a template is text yet; in the triggerer it is a value
            trigger.validate()
        trigger_cls, trigger_kwargs = trigger.serialize()
        for name, value in trigger_kwargs.items():
            if not isinstance(value, str | int | float | None):
                raise ValueError(
                    f"{name} must be known when the Dag is parsed if start_from_trigger is set; got "
                    f"{value!r:.60}. Use deferrable=True."
                )
        self.start_trigger_args = StartTriggerArgs(
            trigger_cls=trigger_cls,
            trigger_kwargs=trigger_kwargs,
            next_method="execute_complete",
            timeout=timedelta(seconds=self.timeout),
        )

    def execute(self, context: Context) -> Any:
        """Wait here, or poll once and leave the waiting to the triggerer."""
        self._began = time.monotonic()
        if not self.deferrable:
            with self._skipping(AirflowSensorTimeout):
                return super().execute(context)
        with self._skipping(Exception):
            trigger = self._validated_trigger()
            first = self._poll_once(context, trigger, Outage())
        if isinstance(first, PokeReturnValue) and first.is_done:
            return first.xcom_value
        return self.defer(
            timeout=timedelta(seconds=self.timeout), trigger=trigger, method_name="execute_complete"
        )

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> Any:
        """Return what the trigger saw, or fail with what stopped it."""
        match event:
            case {"status": "success", "result": dict(result)}:
                return result
            case {"status": "skipped", "message": str(message)}:
                raise AirflowSkipException(message)
            case {"status": "failed", "message": str(message), "retry": bool(retry)}:
                if retry and self.silent_fail:
                    self.log.error("Waiting on, because of silent_fail: %s", message)
                    return self.execute(context)
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

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume after the triggerer, with the same ends as a wait on a worker has, on every Airflow."""
        with self._skipping(Exception):
            if trigger_timed_out(next_method, next_kwargs):
                raise AirflowSensorTimeout(f"The wait has timed out after {self.timeout:g} s.")
            return super().resume_execution(next_method, next_kwargs, context)

    def poke(self, context: Context) -> PokeReturnValue:
        """Poll until Cloudflare responds: an outage is waited out here, and costs no retry."""
        with self._skipping(Exception):
            trigger, outage = self._validated_trigger(), Outage()
            while True:
                polled = self._poll_once(context, trigger, outage)
                if isinstance(polled, PokeReturnValue):
                    return polled
                if self._waited_seconds(context) + polled > self.timeout:
                    return PokeReturnValue(is_done=False)
                time.sleep(polled)

    def _validated_trigger(self) -> CfBillingWaitTrigger:
        trigger = self.trigger()
        try:
            nothing = trigger.validate()
        except ValueError as error:
            raise AirflowFailException(str(error)) from None
        if nothing:
            raise AirflowSkipException(nothing)
        return trigger

    def _poll_once(
        self, context: Context, trigger: CfBillingWaitTrigger, outage: Outage
    ) -> PokeReturnValue | float:
        """Poll; return what was seen, or in how many seconds to poll again if that has failed."""
        query, *arguments = trigger.query()
        with airflow_errors():
            try:
                value = query(self.hook.get_conn(), *arguments)
            except CfBillingError as error:
                if trigger.is_too_early(error, self._waited_seconds(context)):
                    self.log.info("Not known yet, polling again: %s", error)
                    return PokeReturnValue(is_done=False)
                pause = outage.failed(error)
                self.log.warning("Poll failed (%d in a row), retrying: %s", outage.failures, error)
                return pause
        self.log.info("%s", trigger.describe(value))
        result = trigger.evaluate(value)
        return PokeReturnValue(is_done=result is not None, xcom_value=result)

    @contextmanager
    def _skipping(self, failures: type[Exception]) -> Iterator[None]:
        """Skip the task for what fails it, if requested. Airflow does so in some modes, for some failures."""
        try:
            yield
        except AirflowSkipException:
            raise
        except failures as error:
            goes_on = self.silent_fail and not isinstance(error, AirflowFailException | AirflowSensorTimeout)
            for flag in ("soft_fail", "never_fail"):
                if getattr(self, flag, False) and not goes_on:
                    raise AirflowSkipException(f"Skipped because of {flag}: {error}") from error
            raise

    def _waited_seconds(self, context: Context) -> float:
        """Return for how long this wait has gone on, over all its pokes."""
        ti: Any = context["ti"]
        first = getattr(
            ti, "get_first_reschedule_date", None
        )  # Airflow 3; before, start_date is the first one
        since = (first(context) if first and self.reschedule else None) or ti.start_date
        # `dag.test()` of Airflow 2 does not say when a task has started.
        return (datetime.now(UTC) - since).total_seconds() if since else time.monotonic() - self._began


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
        self.wait_for: Any = validation.choice("wait_for", wait_for, ("error", "cleared")) or "error"
        self.since = since
        self._set_start_trigger()

    def trigger(self, *, ends_task: bool = False) -> CfBillingTopupConfigErrorTrigger:
        from airflow_provider_cfbilling.triggers.cfbilling import CfBillingTopupConfigErrorTrigger

        since = self.since.isoformat() if isinstance(self.since, datetime) else self.since
        shared = self._trigger_arguments(ends_task=ends_task)
        return CfBillingTopupConfigErrorTrigger(**shared, wait_for=self.wait_for, since=since)


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

        shared = self._trigger_arguments(ends_task=ends_task)
        return CfBillingCreditBalanceTrigger(
            **shared, below_cents=self.below_cents, at_least_cents=self.at_least_cents
        )


class CfBillingRunwaySensor(CfBillingBaseSensor):
    """Wait until the credits last for less than so many days, and return how long they last.

    The result is that of ``CfBillingGetRunwayOperator``. Two requests for each poll. Further parameters:
    :class:`CfBillingBaseSensor`.

    :param below_days: wait until fewer days than this are left, at the faster of two paces: the last seven
        days and the last 24 hours.
    """

    template_fields: Sequence[str] = (*CfBillingBaseSensor.template_fields, "below_days")

    def __init__(self, *, below_days: float | str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.below_days = below_days
        self._set_start_trigger()

    def trigger(self, *, ends_task: bool = False) -> CfBillingRunwayTrigger:
        from airflow_provider_cfbilling.triggers.cfbilling import CfBillingRunwayTrigger

        shared = self._trigger_arguments(ends_task=ends_task)
        return CfBillingRunwayTrigger(**shared, below_days=self.below_days)


class CfBillingTopupCompletedSensor(CfBillingBaseSensor):
    """Wait until a top-up is paid and its credits are there.

    Fails without a retry if the payment has failed for good. Needs the permission "AI Gateway Write".
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

        shared = self._trigger_arguments(ends_task=ends_task)
        return CfBillingTopupCompletedTrigger(**shared, payment_intent_id=self.payment_intent_id)
