"""Operators: top up AI Gateway credits, read the balance, how long it lasts, and the automatic top-up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn, cast

from airflow.providers.common.compat.sdk import AirflowException, BaseOperator, Stats, conf

from airflow_provider_cfbilling import validation
from airflow_provider_cfbilling.api.errors import CfBillingError
from airflow_provider_cfbilling.api.money import cents_and_dollars
from airflow_provider_cfbilling.base import CfBillingHookMixin, DeferrableMixin, TolerantTemplatesMixin
from airflow_provider_cfbilling.charging.endings import (
    ChargeDeadlinePassed,
    ConnectionUnreadableError,
    TopupNotNeeded,
)
from airflow_provider_cfbilling.dag_run import charge_by, cleared_after, dag_run_began_at
from airflow_provider_cfbilling.errors import AFTER_KILL, airflow_errors, described_error
from airflow_provider_cfbilling.links import CfBillingDashboardLink, CfBillingInvoiceLink

if TYPE_CHECKING:
    from logging import Logger

    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_cfbilling.api.client import CfBillingClient
    from airflow_provider_cfbilling.charging.order import TopupOrder
    from airflow_provider_cfbilling.charging.progress import Progress
    from airflow_provider_cfbilling.charging.protocol import TopupProtocol


class CfBillingBaseOperator(CfBillingHookMixin, BaseOperator):
    """What all operators of this provider share: the connection and the account.

    :param cfbilling_conn_id: the Airflow connection.
    :param account_id: the account to use in place of the connection's, 32 hex digits.
    """

    template_fields: Sequence[str] = ("cfbilling_conn_id", "account_id")
    ui_color = "#faae40"
    ui_fgcolor = "#1d1f20"

    def __init__(
        self, *, cfbilling_conn_id: str = "cfbilling_default", account_id: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.cfbilling_conn_id = cfbilling_conn_id
        self.account_id = account_id


class CfBillingCreateTopupOperator(DeferrableMixin, TolerantTemplatesMixin, CfBillingBaseOperator):
    """Charge a card and add the amount to the account's AI Gateway credits.

    One task of one Dag run charges at most once, however often Airflow runs it again; to charge again, start
    another Dag run. Before the charge it checks the account's limits, the payment method and its guards.
    If the response to the charge is lost, the task searches for its invoice, and charges again only once it
    is proven that nothing was charged. See "Charge guarantees and failure modes" in the documentation.

    :param amount_cents: the credits to buy, in cents: 2500 is $25.00, plus Cloudflare's 5 % fee. At least
        1000 ($10.00), and within the account's limits. A template may render it.
    :param target_balance_cents: in place of ``amount_cents``: buy what is missing to this balance, in whole
        dollars and within the account's limits. The task is skipped if nothing is missing. Once a charge is
        recorded, its amount stays that of this task, however often it is run again.
    :param payment_method_id: the Stripe payment method to charge; the account's default if None.
    :param wait_for_completion: wait until the charge has settled and the credits are there.
    :param poll_interval: seconds between two polls while waiting.
    :param timeout: seconds to wait for completion.
    :param only_if_balance_below_cents: charge only when the credit balance is lower; the task is skipped
        otherwise.
    :param only_if_runway_below_days: charge only when the credits last for less than so many days, at the
        faster of two paces: the last seven days and the last 24 hours. The task is skipped otherwise. With
        both guards, both must hold.
    :param budget_cents: the most that may be charged in one ``budget_period``, by automatic and manual
        top-ups together, this one and its fee included. The task fails without charging if it would be
        exceeded.
    :param budget_period: ``day``, ``week`` (from Monday) or ``month``, in UTC.
    :param max_run_age: a Dag run of the schedule or of a backfill is skipped, and not charged for, if it
        comes more than so many seconds after its time, or if the schedule's next run was due before it
        began: catch-up must not charge for every period that was missed. None: it is charged for, however
        late it comes.
    :param dry_run: check everything, charge nothing. ``True`` or ``False``, known when the Dag is parsed.
    :param deferrable: wait in the triggerer, without a worker.
    :param unknown_outcome_window: seconds that a charge whose response was lost is searched for before it
        counts as not made. A charge that Cloudflare lists, or makes, later than that would be made again.
    """

    template_fields: Sequence[str] = (
        *CfBillingBaseOperator.template_fields,
        "amount_cents",
        "target_balance_cents",
        "payment_method_id",
        "only_if_balance_below_cents",
        "only_if_runway_below_days",
        "budget_cents",
        "budget_period",
    )
    # Plain: Airflow's "json" renderer shows nothing for a number.
    template_fields_renderers: ClassVar[dict[str, str]] = {}
    operator_extra_links = (CfBillingDashboardLink(), CfBillingInvoiceLink())

    def __init__(
        self,
        *,
        amount_cents: int | str | None = None,
        target_balance_cents: float | str | None = None,
        payment_method_id: str | None = None,
        wait_for_completion: bool = True,
        poll_interval: float = 30,
        timeout: float = 3600,
        only_if_balance_below_cents: float | str | None = None,
        only_if_runway_below_days: float | str | None = None,
        budget_cents: int | str | None = None,
        budget_period: Literal["day", "week", "month"] | None = None,
        max_run_age: float | None = 86_400,
        dry_run: bool = False,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        unknown_outcome_window: float = 600,
        **kwargs: Any,
    ) -> None:
        # What refers to a key of the result finds None if there is none: after a dry run, or a skip.
        super().__init__(**{"multiple_outputs": True, **kwargs})
        if (amount_cents is None) == (target_balance_cents is None):
            raise ValueError("Give either amount_cents or target_balance_cents.")
        self.amount_cents: Any = amount_cents
        self.target_balance_cents: Any = target_balance_cents
        self.payment_method_id = payment_method_id
        self.wait_for_completion = validation.boolean("wait_for_completion", wait_for_completion)
        self.poll_interval = validation.seconds("poll_interval", poll_interval) or 30
        self.timeout = validation.seconds("timeout", timeout) or 3600
        self.only_if_balance_below_cents: Any = only_if_balance_below_cents
        self.only_if_runway_below_days: Any = only_if_runway_below_days
        self.budget_cents: Any = budget_cents
        self.budget_period = budget_period
        self.max_run_age = validation.seconds("max_run_age", max_run_age)
        # BaseOperator has a method named dry_run.
        self.charges_nothing = validation.boolean("dry_run", dry_run)
        self.deferrable = validation.boolean("deferrable", deferrable)
        self.unknown_outcome_window = (
            validation.seconds("unknown_outcome_window", unknown_outcome_window) or 600
        )
        self._running: TopupProtocol | None = None
        self.pushed: dict[str, Any] | None = None
        """The XComs of this try, once its process knows them: those from before a deferral it does not."""

    def execute(self, context: Context) -> dict[str, Any]:
        """Check, charge, wait, and return what became of it; or find out what an earlier try did."""
        self.pushed = {}
        return self._execute(context, cleared=cleared_after(context) is not None)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Resume where the task left off when it was deferred."""
        from airflow_provider_cfbilling.charging.progress import Progress

        match event:
            case {"status": "resume", "progress": dict(progress), "trigger_error": trigger_error}:
                try:
                    resumed = Progress.from_json(progress)
                except (AttributeError, KeyError, TypeError, ValueError) as error:  # of another release
                    return self.execute_without_trigger(context, f"its progress cannot be read: {error!r}")
                if trigger_error:
                    self._wait_here(trigger_error)
                with airflow_errors():
                    return self._finish(context, self._protocol(context), resumed)
        return self.execute_without_trigger(context, f"it sent an event that is not known: {event!r:.200}")

    def execute_without_trigger(self, context: Context, reason: str) -> dict[str, Any]:
        """Go on from the record: the trigger has failed, and with it what it knew."""
        self._wait_here(reason)
        return self._execute(context, cleared=True)  # an earlier process of this try may have charged

    def on_kill(self) -> None:
        """Say what becomes of the charge when the task is ended from outside."""
        if self._running:
            self._running.log_money()
        else:
            self.log.warning("%s", AFTER_KILL)

    def _wait_timed_out(self, context: Context) -> NoReturn:
        protocol = self._protocol(context)
        with airflow_errors():
            protocol.begin(cleared=True, began_at=dag_run_began_at(context))
        raise AirflowException(f"The task's execution_timeout passed while it waited. {protocol.money()}")

    def _execute(self, context: Context, *, cleared: bool) -> dict[str, Any]:
        with airflow_errors():
            if self.charges_nothing:
                return self._only_check(context)
            protocol = self._protocol(context)
            progress = protocol.begin(cleared=cleared, began_at=dag_run_began_at(context))
            return self._finish(context, protocol, progress)

    def _finish(self, context: Context, protocol: TopupProtocol, progress: Progress) -> dict[str, Any]:
        """Take step after step until there is nothing left to do."""
        from airflow_provider_cfbilling.task_journal import after_success

        self._show(context, progress)
        while not protocol.is_done(progress):
            earlier = progress
            try:
                progress = protocol.advance(progress)
            except (ChargeDeadlinePassed, TopupNotNeeded):
                protocol.forget()  # nothing was sent that has to be remembered
                raise
            if progress.record.topup != earlier.record.topup:
                self._show(context, progress)
            if progress.should_wait:
                if self.deferrable:
                    self._defer(progress)
                protocol.sleep(progress.seconds_until_next_poll(self.poll_interval))
        Stats.incr(f"cfbilling.topup.{progress.outcome}")
        # Not before Airflow has recorded the success: a try after one that died in between must find it.
        after_success(context, protocol.forget)
        return self._returned(context, protocol.result(progress))

    def _returned(self, context: Context, result: dict[str, Any]) -> dict[str, Any]:
        """Return the result, and push what it holds by its keys."""
        if self.do_xcom_push and self.multiple_outputs:
            self._push(context, result)
        # Airflow would push None too, which 3.0 refuses, and refuse what a subclass makes of the result.
        self.multiple_outputs = False
        return result

    def _show(self, context: Context, progress: Progress) -> None:
        """Let the account, the id and the invoice be seen while the task still waits."""
        dashboard, topup = CfBillingDashboardLink, progress.record.topup or {}
        try:
            account_id = progress.account_id or self.hook.get_conn().account_id
        except Exception as error:
            self.log.warning(
                "The links of this task cannot be shown yet: %s: %s", type(error).__name__, error
            )
            return
        known = {key: topup.get(key) for key in ("payment_intent_id", CfBillingInvoiceLink.xcom_key)}
        self._push(context, {dashboard.xcom_key: dashboard.url(account_id), **known})

    def _push(self, context: Context, values: dict[str, Any]) -> None:
        """Push XComs, each value once."""
        self.pushed = {} if self.pushed is None else self.pushed
        try:
            for key, value in values.items():
                if value is not None and self.pushed.get(key) != value:
                    context["ti"].xcom_push(key=key, value=value)
                    self.pushed[key] = value
        except Exception as error:  # of no consequence for the charge, and must not hide what became of it
            self.log.warning("XComs could not be pushed: %s: %s", type(error).__name__, error)

    def _wait_here(self, reason: str) -> None:
        self.log.warning("The trigger cannot wait for this top-up, so the task waits itself: %s", reason)
        self.deferrable = False

    def _defer(self, progress: Progress) -> NoReturn:
        """Leave the polling to the triggerer. Whatever it sees, this task checks again and decides."""
        from airflow_provider_cfbilling.triggers.cfbilling import CfBillingTopupTrigger

        self.defer(
            trigger=CfBillingTopupTrigger(
                cfbilling_conn_id=self.cfbilling_conn_id,
                account_id=self.account_id,
                progress=progress.to_json(),
                poll_interval=self.poll_interval,
            ),
            method_name="execute_complete",
        )

    def _order(self, context: Context) -> TopupOrder:
        from airflow_provider_cfbilling.charging.order import TopupOrder

        if self.unrendered:
            raise self.unrendered
        return TopupOrder(
            amount_cents=self.amount_cents,
            target_balance_cents=self.target_balance_cents,
            payment_method_id=self.payment_method_id,
            only_if_balance_below_cents=self.only_if_balance_below_cents,
            only_if_runway_below_days=self.only_if_runway_below_days,
            budget_cents=self.budget_cents,
            budget_period=self.budget_period,
            charge_by=charge_by(context, self.max_run_age),
        )

    def _protocol(self, context: Context) -> TopupProtocol:
        from airflow_provider_cfbilling.charging.protocol import TopupProtocol
        from airflow_provider_cfbilling.task_journal import journal_of

        self._running = TopupProtocol(
            self._client,
            self.account_id,
            lambda: self._order(context),
            journal_of(context),
            window_seconds=self.unknown_outcome_window,
            wait_seconds=self.timeout if self.wait_for_completion else None,
            log=cast("Logger", self.log),
        )
        return self._running

    def _client(self, account_id: str | None) -> CfBillingClient:
        """Return a client. The connection is not needed before the record has been read.

        :raises CfBillingError: the connection cannot be read or used.
        """
        if self.unrendered and account_id:  # the account that was charged: the template's may not be known
            self.account_id = account_id
        try:
            return self.hook.get_client(account_id)
        except CfBillingError:
            raise
        except Exception as error:
            raise ConnectionUnreadableError(
                f"Connection {self.cfbilling_conn_id!r} cannot be read: {described_error(error)}"
            ) from error

    def _only_check(self, context: Context) -> dict[str, Any]:
        from airflow_provider_cfbilling.charging.guards import check_order

        order, client = self._order(context), self._client(None)
        dashboard = CfBillingDashboardLink
        self._push(context, {dashboard.xcom_key: dashboard.url(client.account_id)})
        amount_cents = check_order(client, order, cast("Logger", self.log))
        self.log.info("All checks passed. This is a dry run: nothing was charged.")
        Stats.incr("cfbilling.topup.dry_run")
        unknown = dict.fromkeys(("payment_intent_id", "status", "brand", "last4", "onboarding"))
        known = {"amount_cents": amount_cents, "account_id": client.account_id, "outcome": "dry_run"}
        return self._returned(context, {**unknown, **known})


class CfBillingGetTopupConfigOperator(CfBillingBaseOperator):
    """Return the automatic top-up's configuration, and in ``state`` whether it works."""

    def execute(self, context: Context) -> dict[str, Any]:
        """Read it once."""
        with airflow_errors():
            config = self.hook.get_topup_config()
        self.log.info("The automatic top-up is %s.", config.state)
        return config.to_dict()


class CfBillingGetRunwayOperator(CfBillingBaseOperator):
    """Return how long the credits last, for messages and branches.

    The result holds ``balance_cents``, ``spend_per_day_cents``, ``pace`` (``last_7_days`` or
    ``last_24_hours``: the faster of the two), ``days_left`` (None: nothing was spent), ``ends_at`` (ISO 8601
    text) and ``observed_days``: how many days of usage it rests on, at most seven.
    """

    def execute(self, context: Context) -> dict[str, Any]:
        """Read it once."""
        with airflow_errors():
            runway = self.hook.get_runway()
        self.log.info("%s.", runway)
        return runway.to_dict()


class CfBillingGetCreditBalanceOperator(CfBillingBaseOperator):
    """Return the credit balance in ``balance_cents``, and whether a default payment method exists."""

    def execute(self, context: Context) -> dict[str, Any]:
        """Read it once."""
        with airflow_errors():
            balance = self.hook.get_credit_balance()
        self.log.info("The balance is %s.", cents_and_dollars(balance.balance_cents))
        return balance.to_dict()
