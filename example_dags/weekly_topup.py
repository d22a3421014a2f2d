"""
### Top up $25.00 each Monday

One task charges the account's default card at 06:00 UTC, $26.25 with Cloudflare's 5 % fee, plus tax, and
waits until the credits are there. Its result holds the invoice's id and the card, never a secret. The task
charges at most once in a Dag run, also if Airflow runs it again; to charge again, start another Dag run.

If other Dags top up the same account, give all these tasks one `pool` with a single slot.
"""

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG

from airflow_provider_cfbilling.operators.cfbilling import CfBillingCreateTopupOperator

with DAG(
    dag_id="cfbilling_weekly_topup",
    schedule="0 6 * * 1",
    start_date=datetime(2026, 1, 5, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
    doc_md=__doc__,
    tags=["cloudflare", "billing"],
) as dag:
    CfBillingCreateTopupOperator(task_id="topup", amount_cents=2500)  # $25.00, plus fee
