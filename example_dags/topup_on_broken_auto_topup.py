"""
### Act the time the automatic top-up breaks

Airflow 3.0 and later. The triggerer polls every minute, and starts one Dag run for each new failure of the
automatic top-up, and when Cloudflare switches it off. No worker waits. The run notifies you, and tops up by
hand if less than $10.00 is left. `notify` only writes to the log and to XCom: put a Slack or e-mail operator
there.
"""

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, Asset, AssetWatcher, task

from airflow_provider_cfbilling.operators.cfbilling import CfBillingCreateTopupOperator
from airflow_provider_cfbilling.triggers.cfbilling import CfBillingTopupConfigErrorEventTrigger

auto_topup_broken = Asset(
    "cfbilling_auto_topup_broken",
    watchers=[
        AssetWatcher(
            name="cfbilling_auto_topup_broken",
            trigger=CfBillingTopupConfigErrorEventTrigger(poll_interval=60),
        )
    ],
)

with DAG(
    dag_id="cfbilling_topup_on_broken_auto_topup",
    schedule=[auto_topup_broken],
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
    doc_md=__doc__,
    tags=["cloudflare", "billing"],
) as dag:

    @task
    def notify(triggering_asset_events: Any = None) -> str:
        event = triggering_asset_events[auto_topup_broken][-1]
        config = event.extra["payload"]["topup_config"]
        message = (
            f"The automatic top-up is {config['state']}: {config['disabled_reason'] or config['error']}."
        )
        logging.getLogger(__name__).warning(message)
        return message

    topup_by_hand = CfBillingCreateTopupOperator(
        task_id="topup_by_hand",
        amount_cents=2500,  # $25.00, plus Cloudflare's 5 % fee
        only_if_balance_below_cents=1000,  # $10.00
        deferrable=True,
    )

    notify() >> topup_by_hand
