"""Whether a top-up that Cloudflare accepted has been paid."""

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.errors import CfBillingNotFoundError
from airflow_provider_cfbilling.charging.errors import PaymentFailedError


def is_settled(client: CfBillingClient, payment_intent_id: str) -> bool:
    """Return whether the top-up is paid and its credits are there; False while it is under way.

    The status says ``pending`` or ``completed`` and never "failed", so the invoice is looked at as well.

    :raises PaymentFailedError: the payment has failed for good.
    :raises CfBillingNotFoundError: Cloudflare does not know the id.
    """
    try:
        if client.get_topup_status(payment_intent_id).status == "completed":
            return True
    except CfBillingNotFoundError as error:
        error.message = f"Cloudflare does not know the top-up {payment_intent_id} any more"
        raise
    invoices = client.get_invoice_history("manual").invoices
    status = next((invoice.status for invoice in invoices if invoice.id == payment_intent_id), None)
    if status in ("void", "uncollectible"):
        raise PaymentFailedError(f"The payment of top-up {payment_intent_id} failed: its invoice is {status}")
    return False
