"""Whether a top-up that Cloudflare accepted has been paid."""

from dataclasses import dataclass

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.errors import CfBillingNotFoundError
from airflow_provider_cfbilling.charging.errors import PaymentFailedError


@dataclass(frozen=True)
class Settlement:
    """What has become of a top-up.

    :param is_paid: it is paid and its credits are there; False while it is under way.
    :param invoice_pdf: where its invoice is, if that was seen.
    """

    is_paid: bool
    invoice_pdf: str | None = None


def is_settled(client: CfBillingClient, payment_intent_id: str) -> bool:
    """Return whether the top-up is paid; raises as :func:`settlement_of`."""
    return settlement_of(client, payment_intent_id).is_paid


def settlement_of(client: CfBillingClient, payment_intent_id: str) -> Settlement:
    """Look what has become of a top-up.

    The status says ``pending`` or ``completed`` and never "failed", so the invoice is looked at as well.

    :raises PaymentFailedError: the payment has failed for good.
    :raises CfBillingNotFoundError: Cloudflare does not know the id.
    """
    try:
        if client.get_topup_status(payment_intent_id).status == "completed":
            return Settlement(is_paid=True)
    except CfBillingNotFoundError as error:
        error.message = f"Cloudflare does not know the top-up {payment_intent_id} any more"
        raise
    history = client.get_invoice_history("manual")
    invoice = next((invoice for invoice in history.invoices if invoice.id == payment_intent_id), None)
    if invoice and invoice.status in ("void", "uncollectible"):
        raise PaymentFailedError(
            f"The payment of top-up {payment_intent_id} failed: its invoice is {invoice.status}"
        )
    return Settlement(is_paid=False, invoice_pdf=invoice.invoice_pdf if invoice else None)
