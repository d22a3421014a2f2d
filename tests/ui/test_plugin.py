"""What the plugin costs each process of Airflow, and that nothing of it can keep Airflow from starting."""

import pytest

from tests.new_process import in_new_process
from tests.real_airflow.deployment import AIRFLOW_VERSION

HAS_PAGE = AIRFLOW_VERSION >= (3, 1)
needs_page = pytest.mark.skipif(not HAS_PAGE, reason="the credits page needs Airflow 3.1")

PLUGIN = "from airflow_provider_cfbilling.ui import plugin\n"


def test_import_brings_nothing() -> None:
    imported, _ = in_new_process(PLUGIN)
    assert [name for name in imported if not name.startswith("airflow_provider_cfbilling")] == []
    assert "airflow_provider_cfbilling.ui.app" not in imported


def test_airflow_finds_it() -> None:
    _, names = in_new_process(
        "from airflow import plugins_manager as manager\n"
        "manager.ensure_plugins_loaded() if hasattr(manager, 'ensure_plugins_loaded') else None\n"
        "plugins = manager.plugins if hasattr(manager, 'plugins') else manager._get_plugins()[0]\n"
        "result = [p.name for p in plugins if p.name == 'cfbilling']"
    )
    assert names == ["cfbilling"]


@needs_page
def test_page_has_routes_and_an_entry_in_the_menu() -> None:
    _, (routes, entry) = in_new_process(
        f"{PLUGIN}made = plugin.CreditsPlugin()\n"
        "app = made.fastapi_apps[0]['app']\n"
        "result = [sorted(route.path for route in app.routes), made.react_apps[0]]"
    )
    assert routes == ["/fragment", "/static/credits.js"]
    assert entry["bundle_url"].startswith("/cfbilling/static/credits.js?v=")
    assert (entry["name"], entry["category"]) == ("AI Gateway credits", "browse")


MADE = f"{PLUGIN}made = plugin.CreditsPlugin()\nresult = [made.fastapi_apps, made.react_apps]"
BROKEN = "import sys; sys.modules['airflow_provider_cfbilling.ui.app'] = None"
SWITCHED_OFF = "import os; os.environ['AIRFLOW__CFBILLING__CREDITS_PAGE'] = 'False'"
UNREADABLE = "import os; os.environ['AIRFLOW__CFBILLING__CREDITS_PAGE'] = 'perhaps'"


@pytest.mark.parametrize("given", [BROKEN, SWITCHED_OFF, UNREADABLE])
def test_without_its_routes_there_is_no_entry(given: str) -> None:
    _, found = in_new_process(f"{given}\n{MADE}")
    assert found == [[], []]


@pytest.mark.skipif(HAS_PAGE, reason="here there is a page")
def test_before_airflow_3_1_nothing_is_shown() -> None:
    _, found = in_new_process(MADE)
    assert found == [[], []]
