"""
### Keep two weeks in the tank, at most $200 a month

Each morning, if the credits last for less than 14 days at the present pace, buy what is missing to $100.00.
On the other days the task is skipped. The task fails without charging if all charges of the calendar month
(UTC), automatic top-ups and this one with its fee included, would exceed $200.00: a product that suddenly
burns money has few days left too, and must not buy its way on.
"""

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_cfbilling.operators.cfbilling import CfBillingCreateTopupOperator

with DAG(
    dag_id="cfbilling_keep_two_weeks",
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
        target_balance_cents=10_000,  # $100.00
        only_if_runway_below_days=14,
        budget_cents=20_000,  # $200.00, with Cloudflare's 5 % fee
        budget_period="month",
    )
