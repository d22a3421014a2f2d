"""Airflow's pages in a real browser, as the two UIs have them: that of Airflow 3, and that before it."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

from playwright.sync_api import Locator, Page, expect

from tests.chromium import browser, keep_screenshot
from tests.real_airflow.deployment import HAS_API_SERVER, Airflow

TYPE = "Cloudflare AI Gateway Billing"

# Their "Test Connection" refuses what has no port (https://github.com/apache/airflow/pull/73298 fixes it).
_WITHOUT_A_PORT_IS_ANOTHER = ("3.3.1", "3.3.2")
_USER = "admin"


class Pages:
    """What a person does in the UI of Airflow 3."""

    def __init__(self, page: Page, airflow: Airflow) -> None:
        self.page = page
        self._airflow = airflow

    def log_in(self) -> None:
        """Nothing to do: everybody is an admin."""

    def new_connection(self, conn_id: str) -> None:
        """Open the form of a new connection and choose our type."""
        self._go("connections")
        self.page.get_by_role("button", name="Add Connection").click()
        self.form.locator("[name=connection_id]").fill(conn_id)
        self.form.get_by_role("combobox").click()
        self.page.keyboard.type(TYPE)
        self.page.get_by_role("option", name=TYPE, exact=True).click()
        expect(self.field("login")).to_be_visible()

    @property
    def form(self) -> Locator:
        return self.page.get_by_role("dialog")

    def field(self, name: str) -> Locator:
        return self.form.locator(f"[name={name}]")

    def extra_field(self, name: str) -> Locator:
        """The field of the form for something in the connection's extra."""
        if not self.field(f"element_{name}").is_visible():
            self.form.get_by_role("button", name="Extra Fields", exact=True).click()
        return self.field(f"element_{name}")

    def save_and_test(self, conn_id: str) -> str:
        """Save what is in the form, press "Test Connection", and return what is said."""
        self.form.get_by_role("button", name="Save").click()
        row = self.page.get_by_role("row").filter(has=self.page.get_by_role("cell", name=conn_id, exact=True))
        expect(row).to_be_visible()
        if version("apache-airflow") in _WITHOUT_A_PORT_IS_ANOTHER:
            self._airflow.give_port_0(conn_id)
            self._go("connections")
        row.get_by_role("button", name="Test Connection").click()
        return self.page.get_by_role("status").filter(has_text="Test Connection").inner_text()

    def open_task(self, dag_id: str) -> None:
        self._go(f"dags/{dag_id}/runs/run/tasks/topup/details")

    def screenshot(self, name: str) -> None:
        keep_screenshot(self.page, name)

    def _go(self, path: str) -> None:
        self.page.goto(f"{self._airflow.url}/{path}", wait_until="networkidle")


class PagesBefore3(Pages):
    """What a person does in the UI before Airflow 3."""

    def log_in(self) -> None:
        self._airflow.add_admin(_USER)
        self._go("login/")
        self.page.locator("[name=username]").fill(_USER)
        self.page.locator("[name=password]").fill(_USER)
        self.page.keyboard.press("Enter")
        self.page.wait_for_url(lambda url: "login" not in url)
        self.page.wait_for_load_state("networkidle")

    def new_connection(self, conn_id: str) -> None:
        self._go("connection/add")
        self.field("conn_id").fill(conn_id)
        self.form.get_by_role("combobox").click()
        self.page.keyboard.type(TYPE)
        self.page.keyboard.press("Enter")
        expect(self.form.get_by_role("combobox")).to_contain_text(TYPE)

    @property
    def form(self) -> Locator:
        return self.page.locator("form#model_form")

    def extra_field(self, name: str) -> Locator:
        """What is in the extra is written as JSON."""
        return self.form.locator(".CodeMirror")

    def save_and_test(self, conn_id: str) -> str:
        """Press "Test", which tries what is in the form, and save it."""
        self.page.get_by_role("button", name="Test").click()
        said = self.page.locator(".alert-success, .alert-error").inner_text()
        self.page.get_by_role("button", name="Save").click()
        expect(self.page.get_by_text("Added Row")).to_be_visible()
        return said

    def open_task(self, dag_id: str) -> None:
        self.page.goto(f"{self._airflow.url}/dags/{dag_id}/grid?dag_run_id=run&task_id=topup&tab=details")


@contextmanager
def visit(airflow: Airflow) -> Iterator[Pages]:
    """Open an Airflow's UI in a browser."""
    with browser(1100, 760) as context:
        pages = (Pages if HAS_API_SERVER else PagesBefore3)(context.new_page(), airflow)
        pages.log_in()
        yield pages
