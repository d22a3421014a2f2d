"""Cents as a person reads them."""


def dollars(cents: float | None) -> str:
    """Return ``$25.00`` for 2500 and ``-$2.50`` for -250; nothing set is ``$0.00``."""
    amount = round((cents or 0) / 100, 2)
    return f"{'-' if amount < 0 else ''}${abs(amount):,.2f}"


def cents_and_dollars(cents: float) -> str:
    """Return ``2500 cents ($25.00)``."""
    return f"{cents:.10g} cents ({dollars(cents)})"
