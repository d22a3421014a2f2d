"""
### Tell me when less than five days are left

Waits without a worker between its polls until the credits last for less than five days at the present pace,
then sends a mail. It comes again each day while that lasts. Needs a connection `smtp_default`. Nothing is
charged.
"""

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG
from airflow.providers.smtp.operators.smtp import EmailOperator

from airflow_provider_cfbilling.sensors.cfbilling import CfBillingRunwaySensor

RUNWAY = '{%- set runway = ti.xcom_pull(task_ids="less_than_five_days") -%}'

with DAG(
    dag_id="cfbilling_alert_on_low_runway",
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
    doc_md=__doc__,
    tags=["cloudflare", "billing"],
) as dag:
    less_than_five_days = CfBillingRunwaySensor(
        task_id="less_than_five_days",
        below_days=5,
        mode="reschedule",
        poke_interval=timedelta(minutes=15),
        timeout=timedelta(days=365),
    )

    # Slack: SlackAPIPostOperator(task_id="send", channel="#ops", text=...) of apache-airflow-providers-slack.
    send = EmailOperator(
        task_id="send",
        from_email="airflow@example.com",
        to="oncall@example.com",
        subject=RUNWAY + "AI Gateway credits: {{ '%.1f' | format(runway.days_left) }} days left",
        html_content=RUNWAY
        + """
<p>${{ '%.2f' | format(runway.balance_cents / 100) }} are left. At ${{
'%.2f' | format(runway.spend_per_day_cents / 100) }} a day they end on {{
(runway.ends_at or "")[:16] | replace("T", " ") }} UTC.</p>
<p>What to do: check on the page AI Gateway credits whether the automatic top-up works, and whether something
spends more than it should. Then top up in the Cloudflare dashboard, or trigger the Dag that tops up.</p>""",
    )

    less_than_five_days >> send
