"""Reads what users hand over: literals, rendered templates, Params, XComs, values from pandas or from JSON.

For each kind of value there is one function. It returns the one form that the code works with, or raises
:class:`CfBillingInvalidRequestError` (a :class:`ValueError`), naming the parameter. Nothing given is None:
None itself, blanks, and "None", which a template renders for it.
"""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from numbers import Real
from typing import Any, TypeGuard, TypeVar

from airflow_provider_cfbilling.api.errors import CfBillingInvalidRequestError

MIN_TOPUP_CENTS = 1000

# Above this, cents are no amount, and seconds no time.
_MAX_NUMBER = 10**12
T = TypeVar("T")
_ACCOUNT_ID = re.compile(r"[0-9a-f]{32}")
_ACCOUNT_ID_SHAPE = (
    "must be 32 hex digits, as in the address of the Cloudflare dashboard (dash.cloudflare.com/<account id>)"
)
_STRIPE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-]{0,254}")
# Plain ASCII: `Decimal` also takes underscores, "Infinity" and the digits of other scripts.
_NUMBER = re.compile(r"[+-]?[0-9]{1,30}(\.[0-9]{0,30})?([eE][+-]?[0-9]{1,3})?")


def is_absent(value: object) -> bool:
    """Return whether nothing was given: None, blanks, or "None", which a template renders for it."""
    return value is None or (isinstance(value, str) and value.strip() in ("", "None"))


def cents(name: str, value: object) -> float | None:
    """Return a number of cents above 0, a fraction too; a whole one as an ``int``."""
    return _above_zero(name, value, "cents above 0 (1000 is $10.00)")


def amount_cents(value: object) -> int:
    """Return an amount that can be charged: whole cents, at least 1000 ($10.00)."""
    name = "amount_cents"
    number = None if is_absent(value) else _number_of(value)
    if not isinstance(number, int) or number > _MAX_NUMBER:
        raise _invalid(name, "must be a whole number of cents (1000 is $10.00)", value)
    if number < MIN_TOPUP_CENTS:
        raise _invalid(name, f"must be at least {MIN_TOPUP_CENTS} ($10.00)", value)
    return number


def seconds(name: str, value: object) -> float | None:
    """Return a number of seconds above 0. A ``timedelta`` is one too."""
    return _above_zero(name, value, "seconds above 0", timedelta(seconds=1))


def days(name: str, value: object) -> float | None:
    """Return a number of days above 0, a fraction too. A ``timedelta`` is one too."""
    return _above_zero(name, value, "days above 0", timedelta(days=1))


def number(name: str, value: object, low: float, high: float, unit: str, *, whole: bool = False) -> float:
    """Return a number from ``low`` to ``high``."""
    read = _number_of(value)
    if read is None or (whole and not isinstance(read, int)):
        raise _invalid(name, "must be a whole number" if whole else f"must be a number of {unit}", value)
    if not low <= read <= high:
        raise _invalid(name, f"must be from {low:g} to {high:g} {unit}", value)
    return read


def timestamp(name: str, value: object) -> datetime | None:
    """Return a point in time with a time zone, given as itself or as ISO 8601 text."""
    if is_absent(value):
        return None
    try:
        at = datetime.fromisoformat(value.strip()) if isinstance(value, str) else value
        # `isoformat` refuses what only resembles one, such as NaT of pandas.
        if isinstance(at, datetime) and at.tzinfo is not None and datetime.fromisoformat(at.isoformat()):
            return at
    except ValueError:
        pass
    shape = "must be a datetime with a time zone, or its text such as 2026-01-31T00:00:00+00:00"
    raise _invalid(name, shape, value)


def stripe_id(name: str, value: object) -> str | None:
    """Return an id of Stripe's: letters, digits, _ and -."""
    if is_absent(value):
        return None
    text = value.strip() if isinstance(value, str) else value
    if not is_stripe_id(text):
        raise _invalid(name, "must be an id made of letters, digits, _ and -", value)
    return text


def is_stripe_id(value: object) -> TypeGuard[str]:
    """Return whether ``value`` can be an id of Stripe's."""
    return isinstance(value, str) and _STRIPE_ID.fullmatch(value) is not None


def account_id(value: object) -> str | None:
    """Return a Cloudflare account id, 32 hex digits, in lower case."""
    if is_absent(value):
        return None
    text = value.strip().lower() if isinstance(value, str) else ""
    if not _ACCOUNT_ID.fullmatch(text):
        raise _invalid("account id", _ACCOUNT_ID_SHAPE, value)
    return text


def required_account_id(value: object) -> str:
    """Return a Cloudflare account id; there must be one."""
    found = account_id(value)
    if found is None:
        raise CfBillingInvalidRequestError(f"account id {_ACCOUNT_ID_SHAPE}; got nothing.")
    return found


def required(name: str, value: T | None) -> T:
    """Return what has been read; there must be something."""
    if value is None:
        raise CfBillingInvalidRequestError(f"{name} must not be empty.")
    return value


def text(name: str, value: object) -> str | None:
    """Return a text without blanks around it."""
    if is_absent(value):
        return None
    if not isinstance(value, str):
        raise _invalid(name, "must be text", value)
    return value.strip()


def choice(name: str, value: object, options: Sequence[str]) -> str | None:
    """Return one of ``options``."""
    if is_absent(value):
        return None
    stripped = value.strip() if isinstance(value, str) else value
    if stripped not in options:
        raise _invalid(name, f"must be one of {', '.join(options)}", value)
    return str(stripped)


def boolean(name: str, value: object) -> bool:
    """Return True or False. Nothing else will do: the text "False" is true in Python."""
    if not isinstance(value, bool):
        shape = "must be True or False, known when the Dag is parsed (no text, no template)"
        raise _invalid(name, shape, value)
    return value


def _above_zero(name: str, value: object, what: str, unit: timedelta | None = None) -> float | None:
    if is_absent(value):
        return None
    number = value / unit if unit and isinstance(value, timedelta) else _number_of(value)
    if number is None or not 0 < number <= _MAX_NUMBER:
        raise _invalid(name, f"must be a number of {what}", value)
    return number


def _number_of(value: object) -> int | float | None:
    """Return the number that ``value`` is or says, a whole one as an ``int``; None if it is none."""
    if isinstance(value, str):
        if not _NUMBER.fullmatch(value.strip()):
            return None
        value = Decimal(value.strip())
    # A truth value is an int in Python; those of numpy are no numbers at all.
    if isinstance(value, bool) or not isinstance(value, Real | Decimal):
        return None
    try:
        real: Any = value  # what `Real` promises, numpy keeps only in part
        whole = int(real) if abs(real) <= _MAX_NUMBER else None
        return whole if whole == real else float(real)
    except (ArithmeticError, InvalidOperation, ValueError):  # not a number, in one of its forms
        return None


def _invalid(name: str, shape: str, value: object) -> CfBillingInvalidRequestError:
    try:
        shown = f"{value!r:.60}"
    except Exception:  # its own code cannot show it
        shown = type(value).__name__
    return CfBillingInvalidRequestError(f"{name} {shape}; got {shown}.")
