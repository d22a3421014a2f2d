"""Tasks that defer, and are resumed at once, in the way that a test wants."""

from textwrap import indent

TOPUP = "CfBillingCreateTopupOperator(task_id='task', amount_cents=2500, poll_interval=0.2, deferrable=True)"


def self_resuming(task: str, resume: str) -> str:
    """Return a task that is resumed by the statements ``resume``, which have ``context`` and ``deferred``."""
    kind, _, arguments = task.partition("(")
    return f"""\
import os
from airflow.providers.common.compat.sdk import TaskDeferred

class Task({kind}):
    def execute(self, context):
        try:
            return super().execute(context)
        except TaskDeferred as deferred:
{indent(resume, " " * 12)}

Task({arguments}
"""


def self_resuming_topup(change: str) -> str:
    """Return a top-up to which its trigger hands back ``progress``, after the statement ``change``."""
    return self_resuming(
        TOPUP,
        "progress = deferred.trigger.progress\n"
        f"{change}\n"
        "event = {'status': 'resume', 'progress': progress, 'trigger_error': None}\n"
        "return self.execute_complete(context, event)",
    )
