"""Links from a task to the Cloudflare dashboard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, TaskInstanceKey


class CfBillingInvoiceLink(BaseOperatorLink):
    """The invoice of the top-up, as PDF. There is none before Cloudflare has shown it."""

    name = "Invoice (PDF)"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address, or nothing where it is not known."""
        return XCom.get_value(ti_key=ti_key, key="invoice_pdf") or ""


class CfBillingDashboardLink(BaseOperatorLink):
    """The account's AI Gateway page, where credits, cards and invoices are."""

    name = "Cloudflare dashboard"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address, or nothing where the task has not come to know its account."""
        account_id = XCom.get_value(ti_key=ti_key, key="account_id")
        return self.url(account_id) if account_id else ""

    @staticmethod
    def url(account_id: str) -> str:
        """Return the address for an account."""
        return f"https://dash.cloudflare.com/{account_id}/ai/ai-gateway"
