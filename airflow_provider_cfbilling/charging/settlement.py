"""Whether a top-up that Cloudflare accepted has been paid."""

from dataclasses import dataclass

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.errors import CfBillingError, CfBillingNotFoundError
from airflow_provider_cfbilling.charging.endings import PaymentFailedError
from airflow_provider_cfbilling.charging.reconcile import DEAD

# For so long after its acceptance a top-up may not be known everywhere yet, in seconds.
UNKNOWN_OUTCOME_WINDOW = 600.0


@dataclass(frozen=True)
class Settlement:
    """What has become of a top-up.

    :param is_paid: it is paid and its credits are there; False while it is under way.
    :param invoice_pdf: address of its invoice, if that was seen.
    """

    is_paid: bool
    invoice_pdf: str | None = None


def is_settled(client: CfBillingClient, payment_intent_id: str) -> bool:
    """Return whether the top-up is paid; raises as :func:`settlement_of`."""
    return settlement_of(client, payment_intent_id).is_paid


def settlement_of(client: CfBillingClient, payment_intent_id: str) -> Settlement:
    """Check what has become of a top-up.

    The status says ``pending`` or ``completed`` and never "failed", so the invoice is checked as well.

    :raises PaymentFailedError: the payment has failed for good.
    :raises CfBillingNotFoundError: Cloudflare does not know the id, or not yet.
    """
    try:
        if client.get_topup_status(payment_intent_id).status == "completed":
            return Settlement(is_paid=True)
    except CfBillingNotFoundError as error:
        raise CfBillingNotFoundError(
            f"Cloudflare does not know top-up {payment_intent_id}",
            status=error.status,
            codes=error.codes,
            request_id=error.request_id,
        ) from error
    try:
        history = client.get_invoice_history("manual")
    except CfBillingError:
        return Settlement(is_paid=False)  # the status was readable, and is what counts
    invoice = next((invoice for invoice in history.invoices if invoice.id == payment_intent_id), None)
    if invoice and invoice.status in DEAD:
        raise PaymentFailedError.of(payment_intent_id, invoice.status)
    return Settlement(is_paid=False, invoice_pdf=invoice.invoice_pdf if invoice else None)
