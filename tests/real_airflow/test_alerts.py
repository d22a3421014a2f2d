"""The example whose top-up alerts if it fails, in a whole Airflow: mail at its end, also if it is killed."""

import signal
from contextlib import ExitStack
from pathlib import Path

from airflow_provider_cfbilling.sandbox import Sandbox
from tests.mailbox import Mailbox, mail_server
from tests.real_airflow import processes
from tests.real_airflow.deployment import Airflow, an_airflow_can_run_here

pytestmark = an_airflow_can_run_here(seconds=300)

EXAMPLE = Path(__file__).parents[2] / "example_dags" / "topup_with_alerts.py"
TIMEOUT = 120.0
# Of the mail that comes whatever has ended the task. Airflow 2 sends one more, with what its scheduler saw.
NO_MESSAGE = "This mail has no message of the task."
NAMES = ("refused", "killed", "machine_lost")


def example(name: str) -> str:
    """Return the example as a Dag of that name, which a user starts, and which does not wait for minutes."""
    source = EXAMPLE.read_text()
    for old, new in {
        "cfbilling_topup_with_alerts": name,
        '"0 6 * * 1"': "None",
        "timedelta(minutes=5)": "timedelta(seconds=1)",
        '"retries": 3': f'"retries": {2 if name == "refused" else 0}',
        'task_id="topup"': f'task_id="topup", cfbilling_conn_id="{name}"',
    }.items():
        assert source.count(old) == 1
        source = source.replace(old, new)
    return source


def test_every_end_is_mailed_and_no_retry(stack: ExitStack) -> None:
    mailbox, smtp = stack.enter_context(mail_server())
    sandboxes = {name: stack.enter_context(Sandbox()) for name in NAMES}
    environment = {
        f"AIRFLOW_CONN_{name.upper()}": f"{sandbox.connection_uri()}?read_timeout=40&max_attempts=1"
        for name, sandbox in sandboxes.items()
    }
    dags = "".join(example(name) for name in NAMES)
    airflow = stack.enter_context(Airflow(dags, NAMES, environment | {"AIRFLOW_CONN_SMTP_DEFAULT": smtp}))

    for sandbox in sandboxes.values():
        sandbox.configure(balance_cents=500)
    sandboxes["refused"].fault("getCreditBalance", "status", status=503, times=None)
    for name in NAMES[1:]:
        sandboxes[name].fault("createTopup", "hang", "after")
    for name in NAMES:
        airflow.trigger(name)
    for name in NAMES[1:]:
        airflow.wait_until(
            "the charge is sent", lambda name=name: sandboxes[name].requests("createTopup"), TIMEOUT
        )
        (task,) = airflow.task_processes(name)
        if name == "machine_lost":
            processes.send(task.parent, signal.SIGKILL)
        processes.send(task.pid, signal.SIGKILL)
    for name in NAMES:
        airflow.wait_until(
            f"the run of {name} fails", lambda name=name: airflow.run_state(name) == "failed", TIMEOUT
        )
        airflow.wait_until(
            f"the run of {name} is mailed",
            lambda name=name: any(NO_MESSAGE in text for text in mails_about(mailbox, name)),
            TIMEOUT,
        )
    assert airflow.task("refused").try_number == 3
    airflow.wait_until("the run is mailed too", lambda: len(mails_about(mailbox, "refused")) == 2, TIMEOUT)
    # The task's process and the Dag processor send one each: in either order.
    (mail,) = [text for text in mails_about(mailbox, "refused") if NO_MESSAGE not in text]
    assert "Injected error 503. Nothing was charged" in mail
    for _, _, text in mailbox.all():
        assert not any(sandbox.token in text for sandbox in sandboxes.values())


def mails_about(mailbox: Mailbox, name: str) -> list[str]:
    return [text for _, subject, text in mailbox.all() if f": {name}, run" in subject]
