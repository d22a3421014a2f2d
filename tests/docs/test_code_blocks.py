"""Every Python block of the README and the docs is run, as it stands there."""

import re
from pathlib import Path
from textwrap import indent

import pytest

from airflow_provider_cfbilling.sandbox import Sandbox
from tests.airflow_runs import HEADER, DagFolder, Run
from tests.real_airflow.deployment import HAS_API_SERVER

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = {
    f"{page.name} {number}": block
    for page in PAGES
    for number, block in enumerate(re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.M | re.S), 1)
}
# What is between a block and a file that can be run: the names that the text around it has given.
A_DAG, PARTS_OF_A_DAG, A_TEST = "with DAG(", ("Operator(", "Sensor("), "run_my_dag()"


@pytest.mark.parametrize("name", BLOCKS)
def test_block_runs(
    sandbox: Sandbox, dag_folder: DagFolder, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    block = BLOCKS[name]
    sandbox.configure(settle_seconds=0, balance_cents=500)
    if "AssetWatcher" in block and not HAS_API_SERVER:
        pytest.skip("AssetWatcher came with Airflow 3.0, as the page says")
    if A_DAG in block:
        # `dag.test()` wants the Dag by name.
        run = run_dag(dag_folder, re.sub(r"(?m)^(with DAG\(.*\)):$", r"\1 as dag:", block))
    elif any(part in block for part in PARTS_OF_A_DAG):
        run = run_dag(dag_folder, HEADER.format(dag_id="block") + indent(block, "    "))
    else:
        assert A_TEST in block, f"nothing runs the block:\n{block}"

        def run_my_dag() -> None:
            dag_folder.run("CfBillingCreateTopupOperator(task_id='topup', amount_cents=2500)")

        exec(block, {"monkeypatch": monkeypatch, "run_my_dag": run_my_dag})
        return
    assert run.state == "success"
    assert set(run.tasks.values()) == {"success"}
    assert [charge.amount_cents for charge in sandbox.charges()] == [2500]


def run_dag(dag_folder: DagFolder, source: str) -> Run:
    (dag_id,) = re.findall(r'with DAG\("(\w+)"', source)
    return dag_folder.run_source(dag_id, source)


def test_there_are_blocks() -> None:
    assert len(BLOCKS) >= 4
