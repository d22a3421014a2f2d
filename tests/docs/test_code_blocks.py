"""Every Python and JSON block and every connection of the README and the docs is tried, as it stands there.

The commands are typed in ``test_commands.py``.
"""

import json
import re
from pathlib import Path
from textwrap import indent

import pytest

from airflow_provider_cfbilling.hooks.cfbilling import CfBillingHook
from airflow_provider_cfbilling.sandbox import Sandbox
from tests.airflow_runs import HEADER, DagFolder, Run
from tests.docs.pages import BLOCKS, Block, blocks
from tests.real_airflow.deployment import HAS_API_SERVER

# What is between a block and a file that can be run: the names that the text around it has given.
A_DAG, PARTS_OF_A_DAG, A_TEST = "with DAG(", ("Operator(", "Sensor("), "run_my_dag()"
A_CONNECTION, A_DRAWING = "cfbilling://", "|"
TRIED = {"python", "json", ""}
TYPED = {"console"}


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python_runs(
    sandbox: Sandbox,
    dag_folder: DagFolder,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    block: Block,
) -> None:
    text = block.text
    sandbox.configure(settle_seconds=0, balance_cents=500)
    sandbox.auto_topup("break")  # what a watch waits for
    mailbox = request.getfixturevalue("mailbox") if "EmailOperator" in text else None
    if "AssetWatcher" in text and not HAS_API_SERVER:
        pytest.skip("AssetWatcher came with Airflow 3.0, as the page says")
    if A_DAG in text:
        # `dag.test()` wants the Dag by name.
        run = run_dag(dag_folder, re.sub(r"(?ms)^(with DAG\(.*?\)):$", r"\1 as dag:", text))
    elif any(part in text for part in PARTS_OF_A_DAG):
        # Each by a name of its own: Airflow stores a Dag that has changed half a minute later.
        dag_id = f"{Path(block.page).stem}_{block.number}".replace("-", "_")
        run = run_dag(dag_folder, HEADER.format(dag_id=dag_id) + indent(text, "    "))
    else:
        assert A_TEST in text, f"nothing runs the block:\n{text}"

        def run_my_dag() -> None:
            dag_folder.run(
                "CfBillingCreateTopupOperator(task_id='topup', amount_cents=2500, poll_interval=0.1)"
            )

        exec(text, {"monkeypatch": monkeypatch, "run_my_dag": run_my_dag})
        return
    assert run.state == "success", run.ends
    assert set(run.tasks.values()) == {"success"}
    assert mailbox is None or mailbox.only()
    assert [charge.amount_cents for charge in sandbox.charges()] == [2500] * ("CreateTopup" in text)


@pytest.mark.parametrize("block", blocks("json"), ids=str)
def test_json_is_a_connection_or_a_topup_output(
    sandbox: Sandbox, dag_folder: DagFolder, monkeypatch: pytest.MonkeyPatch, block: Block
) -> None:
    shown = json.loads(block.text)
    if "conn_type" in shown:
        connection = {**json.loads(filled_in(block.text, sandbox)), "host": sandbox.base_url}
        assert works(json.dumps(connection), monkeypatch)
    else:
        sandbox.configure(settle_seconds=0)
        run = dag_folder.run("CfBillingCreateTopupOperator(task_id='task', amount_cents=2500)")
        invented = ("payment_intent_id", "account_id")
        assert shown == {**run.result(), **{key: shown[key] for key in invented}}


@pytest.mark.parametrize("block", blocks(""), ids=str)
def test_block_without_language_is_connections_or_drawing(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, block: Block
) -> None:
    for line in block.text.splitlines():
        if line.startswith(A_CONNECTION):
            account, _, rest = filled_in(line, sandbox).partition("@")
            _, mark, options = rest.partition("?")
            assert works(
                f"{account}@{sandbox.connection_uri().partition('@')[2]}{mark}{options}", monkeypatch
            )
        else:
            assert A_DRAWING in block.text


def test_there_is_no_other_kind_of_block() -> None:
    assert {block.language for block in BLOCKS} == TRIED | TYPED


def filled_in(text: str, sandbox: Sandbox) -> str:
    return text.replace("<account id>", sandbox.account_id).replace("<token>", sandbox.token)


def works(connection: str, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setenv("AIRFLOW_CONN_CFBILLING_DEFAULT", connection)
    return CfBillingHook().test_connection()[0]


def run_dag(dag_folder: DagFolder, source: str) -> Run:
    (dag_id,) = re.findall(r'with DAG\(\s*"(\w+)"', source)
    return dag_folder.run_source(dag_id, source)
