"""
### Tell me when the automatic top-up breaks

Waits without a worker between its polls until an automatic top-up fails or Cloudflare switches it off, then
sends a mail. Failures from more than a day before a run do not count, so that one is reported for a day and
then no more. Needs a connection `smtp_default`. Nothing is charged.
"""

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG
from airflow.providers.smtp.operators.smtp import EmailOperator

from airflow_provider_cfbilling.sensors.cfbilling import CfBillingTopupConfigErrorSensor

CONFIG = '{%- set config = ti.xcom_pull(task_ids="auto_topup_is_broken") -%}'

with DAG(
    dag_id="cfbilling_alert_on_broken_auto_topup",
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5)},
    doc_md=__doc__,
    tags=["cloudflare", "billing"],
) as dag:
    auto_topup_is_broken = CfBillingTopupConfigErrorSensor(
        task_id="auto_topup_is_broken",
        since="{{ dag_run.start_date - macros.timedelta(days=1) }}",
        mode="reschedule",
        poke_interval=timedelta(minutes=15),
        timeout=timedelta(days=365),
    )

    # Slack: SlackAPIPostOperator(task_id="send", channel="#ops", text=...) of apache-airflow-providers-slack.
    send = EmailOperator(
        task_id="send",
        from_email="airflow@example.com",
        to="oncall@example.com",
        subject=CONFIG + "The automatic top-up of AI Gateway credits is {{ config.state }}",
        html_content=CONFIG
        + """
<p>Cloudflare says: {{ (config.disabled_reason or config.error) | e }}. Until this is fixed, nothing tops up
the credits by itself.</p>
<p>What to do: open the AI Gateway page of the Cloudflare dashboard (Credits Available, Manage), check or
replace the card, then save the automatic top-up again.</p>""",
    )

    auto_topup_is_broken >> send
