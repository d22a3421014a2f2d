"""Links from a task to the Cloudflare dashboard and to its invoice. Showing them makes no request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, TaskInstanceKey


class CfBillingLink(BaseOperatorLink):
    """An address that the task has pushed as the XCom ``xcom_key``.

    Airflow 3 reads a link from the XCom of this key. So it is there from the push on, not only when the task
    has ended.
    """

    xcom_key: str

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address, or nothing if it is not known."""
        # Airflow 3 calls this in the task's process too, and logs an error for an XCom that is not there.
        pushed: dict[str, str] | None = getattr(operator, "pushed", None)
        if pushed is not None:
            return pushed.get(self.xcom_key, "")
        return XCom.get_value(ti_key=ti_key, key=self.xcom_key) or ""


class CfBillingDashboardLink(CfBillingLink):
    """The account's AI Gateway page, where credits, cards and invoices are."""

    name = "Cloudflare dashboard"
    xcom_key = "dashboard_url"

    @staticmethod
    def url(account_id: str) -> str:
        """Return the address for an account."""
        return f"https://dash.cloudflare.com/{account_id}/ai/ai-gateway"


class CfBillingInvoiceLink(CfBillingLink):
    """The invoice of the top-up, as PDF. There is none before Cloudflare has shown it."""

    name = "Invoice (PDF)"
    xcom_key = "invoice_pdf"
