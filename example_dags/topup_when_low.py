"""
### Top up when the balance is low

Each morning, buy credits of $50.00 if less than $10.00 is left: $52.50 with Cloudflare's 5 % fee, plus tax.
On the other days the task is skipped, so that the grid shows on which days the card was charged. The task
fails without charging if all charges of the calendar month (UTC), automatic top-ups and this one with its fee
included, would exceed $105.00: two such top-ups without tax.

Two tasks that check at the same time both see a low balance: if other Dags top up the same account, give all
these tasks one `pool` with a single slot.
"""

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_cfbilling.operators.cfbilling import CfBillingCreateTopupOperator

with DAG(
    dag_id="cfbilling_topup_when_low",
    schedule="0 6 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
    doc_md=__doc__,
    tags=["cloudflare", "billing"],
) as dag:
    CfBillingCreateTopupOperator(
        task_id="topup",
        amount_cents=5000,  # $50.00, plus Cloudflare's 5 % fee
        only_if_balance_below_cents=1000,  # $10.00
        budget_cents=10_500,  # $105.00
        budget_period="month",
    )
