"""Cents: whether they can be some, and as a person reads them."""

import math
from typing import Any


def is_number_above_0(value: Any) -> bool:
    """Tell whether ``value`` is a finite number above 0; a truth value is none."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value > 0


def dollars(cents: float | None) -> str:
    """Return ``$25.00`` for 2500 and ``-$2.50`` for -250; nothing set is ``$0.00``."""
    amount = round((cents or 0) / 100, 2)
    return f"{'-' if amount < 0 else ''}${abs(amount):,.2f}"


def cents_and_dollars(cents: float) -> str:
    """Return ``2500 cents ($25.00)``."""
    return f"{cents:.10g} cents ({dollars(cents)})"
