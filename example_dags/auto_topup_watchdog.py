"""
### Stand in for a broken automatic top-up

The sensor waits, for weeks if need be and without a worker between its polls, until an automatic top-up
fails or Cloudflare switches it off. Then a top-up by hand keeps the account going, if less than $10.00 is
left, and the next run goes on watching. Failures from more than a day before a run do not count, so that a
card that is not replaced yet is not reported for ever.

`notify` only writes to the log and to XCom: put a Slack or e-mail operator there, or a notifier in
`on_success_callback`. If other Dags top up the same account, give the top-ups one `pool` with a single
slot.
"""

import logging
from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG, task

from airflow_provider_cfbilling.operators.cfbilling import CfBillingCreateTopupOperator
from airflow_provider_cfbilling.sensors.cfbilling import CfBillingTopupConfigErrorSensor

MESSAGE = """\
{%- set config = ti.xcom_pull(task_ids="auto_topup_is_broken") -%}
{%- set topup = ti.xcom_pull(task_ids="topup_by_hand") -%}
The automatic top-up is {{ config.state }} ({{ config.disabled_reason or config.error }}).
{%- if topup %} Topped up by hand: ${{ "%.2f" | format(topup.amount_cents / 100) }}, \
invoice {{ topup.payment_intent_id }}.
{%- else %} Nothing was charged: $10.00 or more are left.
{%- endif %}"""

with DAG(
    dag_id="cfbilling_auto_topup_watchdog",
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
    doc_md=__doc__,
    tags=["cloudflare", "billing"],
) as dag:
    # Not soft_fail: it would also skip, day by day and unseen, when the API token is refused.
    auto_topup_is_broken = CfBillingTopupConfigErrorSensor(
        task_id="auto_topup_is_broken",
        since="{{ dag_run.start_date - macros.timedelta(days=1) }}",
        mode="reschedule",
        poke_interval=timedelta(minutes=15),
        timeout=timedelta(days=365),
    )

    topup_by_hand = CfBillingCreateTopupOperator(
        task_id="topup_by_hand",
        amount_cents=2500,  # $25.00, plus Cloudflare's 5 % fee
        only_if_balance_below_cents=1000,  # $10.00
    )

    # Also if the top-up was skipped: the broken automatic one needs a person all the same.
    @task(trigger_rule="none_failed")
    def notify(message: str) -> str:
        logging.getLogger(__name__).warning(message)
        return message

    auto_topup_is_broken >> topup_by_hand >> notify(MESSAGE)
