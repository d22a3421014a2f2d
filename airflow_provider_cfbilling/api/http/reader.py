"""Reads a JSON value into a frozen dataclass, by its annotations, and says which field is wrong."""

import re
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import cache
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NewType,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from airflow_provider_cfbilling.api.errors import CfBillingMalformedResponseError
from airflow_provider_cfbilling.api.http.text import one_line
from airflow_provider_cfbilling.validation import is_stripe_id

Id = NewType("Id", str)
"""Text of letters, digits, _ and -, so that it means the same wherever it is put."""

Link = NewType("Link", str)
"""An address that people can click on without harm."""

# No user name, which reads like a host, and nothing that could end an attribute of a page.
_LINK = re.compile(r"https://[A-Za-z0-9][A-Za-z0-9.\-]*(:[0-9]{1,5})?([/?][!#$%&(-;=?-\[\]_a-z~]*)?")
_MAX_LINK = 2000

# Above this a Unix time is in milliseconds: as seconds it would be the year 5138.
_MILLISECONDS_FROM = 1e11
# 0.07 * 100 is 7.000000000000001 in binary.
_FRACTION_DIGITS = 6


@dataclass(frozen=True)
class Model:
    """Base of all responses."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON can hold them; times as ISO 8601 text."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}


AnyModel = TypeVar("AnyModel", bound=Model)


@dataclass(frozen=True)
class Key:
    """What the API calls a field whose name here has the unit: ``Annotated[float, Key("amount")]``.

    :param times: how many of our unit one of the API's is: 100 for dollars that are read as cents.
    """

    name: str
    times: int = 1


def read(model: type[AnyModel], value: Any, where: str = "result", **known: Any) -> AnyModel:
    """Return ``value`` as a ``model``. Fields that the model does not have are ignored.

    :param known: fields that the response's headers hold.
    :raises CfBillingMalformedResponseError: a field is missing, null or of the wrong type.
    """
    if not isinstance(value, dict):
        raise _problem(where, "is not an object", value)
    for name, key, kind in _declared(model):  # type: ignore[arg-type]
        if name not in known:
            found = _read(kind, value.get(key.name), f"{where}.{key.name}")
            known[name] = found if key.times == 1 else round(found * key.times, _FRACTION_DIGITS)
    return model(**known)


@cache
def _declared(model: type[Model]) -> list[tuple[str, Key, Any]]:
    """Return each field's name, its key in the JSON object and its type."""
    declared = []
    for name, kind in get_type_hints(model, include_extras=True).items():
        kind, key = get_args(kind) if get_origin(kind) is Annotated else (kind, Key(name))
        declared.append((name, key, kind))
    return declared


def _read(kind: Any, value: Any, where: str) -> Any:
    if get_origin(kind) in (UnionType, Union):
        if value is None:
            return None
        (kind,) = (option for option in get_args(kind) if option is not NoneType)
        if kind is datetime and value == 0:
            return None  # how the API says "never"
        if kind is Id and isinstance(value, str) and not is_stripe_id(value):
            return None  # one odd invoice must not make the whole history unreadable
    if value is None:
        raise CfBillingMalformedResponseError(f"The response's {where} is missing or null")
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise _problem(where, "is not a list", value)
        return tuple(_read(get_args(kind)[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise CfBillingMalformedResponseError(
                f"The response's {where} is none of {', '.join(get_args(kind))}"
            )
        return value
    if isinstance(kind, type) and issubclass(kind, Model):
        return read(kind, value, where)
    return _SCALARS[kind](value, where)


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise _problem(where, "is not text", value)
    return one_line(value)


def _id(value: Any, where: str) -> Id:
    if not is_stripe_id(value):
        raise CfBillingMalformedResponseError(f"The response's {where} is not an id")
    return Id(value)


def _link(value: Any, where: str) -> Link | None:
    """Return an address; None for one that is not safe to click on, as if there were none."""
    if not isinstance(value, str):
        raise _problem(where, "is not text", value)
    return Link(value) if len(value) <= _MAX_LINK and _LINK.fullmatch(value) else None


def _boolean(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise _problem(where, "is neither true nor false", value)
    return value


def _json_number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):  # bool is a kind of int in Python
        raise _problem(where, "is not a number", value)
    if not abs(value) < 1e18:  # 1e999 is read as infinity
        raise CfBillingMalformedResponseError(f"The response's {where} is larger than a number can be there")
    return value


def _whole(value: Any, where: str) -> int:
    number = _json_number(value, where)
    if number != int(number):
        raise _problem(where, "is not a whole number", value)
    return int(number)


def _timestamp(value: Any, where: str) -> datetime:
    """Read a Unix time, in seconds or milliseconds."""
    number = _json_number(value, where)
    try:
        return datetime.fromtimestamp(number / 1000 if number > _MILLISECONDS_FROM else number, UTC)
    except (ValueError, OverflowError, OSError):
        raise _problem(where, "is not a Unix time", value) from None


_SCALARS = {
    str: _text,
    Id: _id,
    Link: _link,
    bool: _boolean,
    int: _whole,
    float: _json_number,
    datetime: _timestamp,
}


def _problem(where: str, what: str, value: Any) -> CfBillingMalformedResponseError:
    # The type, not the value: what stands in the wrong field may be a secret.
    return CfBillingMalformedResponseError(
        f"The response's {where} {what} but of type {type(value).__name__}"
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Model):
        return value.to_dict()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value.isoformat() if isinstance(value, datetime) else value
