"""
### A top-up that tells when it fails

Each Monday, buy credits of $25.00 if less than $10.00 is left. If the task fails for good, a mail says why,
whether money moved, and what to do. That includes the rare top-up that needs a person: its response was lost,
and the invoices do not show which of them it made. A task that is killed cannot send a mail: then that of the
Dag run, which comes after each failure, is the only one. Needs a connection `smtp_default`.
"""

from datetime import UTC, datetime, timedelta

from airflow.providers.common.compat.sdk import DAG
from airflow.providers.smtp.notifications.smtp import SmtpNotifier

from airflow_provider_cfbilling.operators.cfbilling import CfBillingCreateTopupOperator

# Airflow gives no exception with a killed task, nor with a Dag run: without a default, no mail is sent.
NO_MESSAGE = (
    "This mail has no message of the task. If another mail has it, follow that one. Otherwise the task was "
    "killed: clear it, and it finds out whether money moved before it charges."
)
MESSAGE = "(exception | default('" + NO_MESSAGE + "', true))"
# Slack: SlackNotifier(channel="#ops", text="{{ " + MESSAGE + " }}") of apache-airflow-providers-slack.
TELL = SmtpNotifier(
    from_email="airflow@example.com",
    to="oncall@example.com",
    subject="The top-up of AI Gateway credits has failed: {{ dag.dag_id }}, {{ run_id }}",
    html_content="<p>{{ "
    + MESSAGE
    + """ | e }}</p>
<p>What to do: the text above says whether money moved. Fix what it names, then clear the task: it goes on
from where it was, and charges at most once. If it says to review invoices, do that first: if one of them is
this top-up's, mark the task as success; if none is, start another Dag run.</p>""",
)

with DAG(
    dag_id="cfbilling_topup_with_alerts",
    schedule="0 6 * * 1",
    start_date=datetime(2026, 1, 5, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    on_failure_callback=TELL,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=5), "on_failure_callback": TELL},
    doc_md=__doc__,
    tags=["cloudflare", "billing"],
) as dag:
    CfBillingCreateTopupOperator(
        task_id="topup",
        amount_cents=2500,  # $25.00, plus Cloudflare's 5 % fee
        only_if_balance_below_cents=1000,  # $10.00
        budget_cents=10_500,  # $105.00
        budget_period="month",
    )
