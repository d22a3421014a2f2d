"""
### Top up many accounts

One mapped task per account, each with an amount of its own, to which Cloudflare adds its 5 % fee. One
account's declined card does not stop the others, and the run shows which account it was. The list is the
parameter `topups`; its default fits a sandbox with two accounts
(`python -m airflow_provider_cfbilling.sandbox --accounts 2`). The connection's API token needs the permission
on all of them; the account ids replace the connection's own.

The accounts differ, so their tasks may run side by side. An account that is listed twice, or topped up by
another Dag, needs a `pool` with a single slot.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.common.compat.sdk import DAG, Param, task

from airflow_provider_cfbilling.operators.cfbilling import CfBillingCreateTopupOperator

TOPUPS = [
    {"account_id": "0123456789abcdef0123456789abcdef", "amount_cents": 2500},  # $25.00
    {"account_id": "0123456789abcdef0123456789abcdf0", "amount_cents": 10_000},  # $100.00
]

with DAG(
    dag_id="cfbilling_many_accounts",
    schedule="0 6 1 * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
    params={"topups": Param(TOPUPS, type="array", items={"type": "object"})},
    doc_md=__doc__,
    tags=["cloudflare", "billing"],
) as dag:

    @task
    def topups(params: Any = None) -> list[dict[str, Any]]:
        return params["topups"]

    CfBillingCreateTopupOperator.partial(
        task_id="topup", map_index_template="{{ task.account_id }}"
    ).expand_kwargs(topups())
