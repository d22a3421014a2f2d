"""
### Top up the time the balance falls below a line

Airflow 3.0 and later. The triggerer polls the balance every minute, and starts one Dag run each time that
it falls below $10.00. No worker waits. However many Dags and sensors watch the account, Cloudflare sees one
request a minute. The budget stops what no balance guard can: a product that burns money.
"""

from datetime import UTC, datetime, timedelta

from airflow.sdk import DAG, Asset, AssetWatcher

from airflow_provider_cfbilling.operators.cfbilling import CfBillingCreateTopupOperator
from airflow_provider_cfbilling.triggers.cfbilling import CfBillingLowBalanceEventTrigger

low_balance = Asset(
    "cfbilling_low_balance",
    watchers=[
        AssetWatcher(
            name="cfbilling_low_balance",
            trigger=CfBillingLowBalanceEventTrigger(below_cents=1000, poll_interval=60),  # $10.00
        )
    ],
)

with DAG(
    dag_id="cfbilling_topup_on_low_balance",
    schedule=[low_balance],
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
    doc_md=__doc__,
    tags=["cloudflare", "billing"],
) as dag:
    CfBillingCreateTopupOperator(
        task_id="topup",
        amount_cents=2500,  # $25.00, plus Cloudflare's 5 % fee
        only_if_balance_below_cents=1000,  # $10.00
        budget_cents=21_000,  # $210.00: eight such top-ups without tax
        budget_period="month",
        deferrable=True,
    )
