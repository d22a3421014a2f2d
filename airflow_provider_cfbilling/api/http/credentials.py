"""Which fault of the credentials Cloudflare refuses, and what to do about it.

Cloudflare documents the forms of its credentials, but not these codes. They are as others have met them:

- 400, 6003 with 6111 in its chain: https://github.com/jeessy2/ddns-go/issues/916; a Global API Key sent as a
  token: https://github.com/kissgyorgy/cloudflare-dyndns/issues/40
- 400, 6003 with 6103: https://github.com/cloudflare/cloudflare-typescript/issues/161; with 6102 too:
  https://github.com/openwrt/packages/issues/15714
- 400, 9106: https://github.com/cloudflare/cloudflare-python/issues/2678
- 403, 9103: https://github.com/cloudflare/terraform-provider-cloudflare/issues/1185
- 403, 9109 with an address: https://github.com/jeessy2/ddns-go/issues/1341
- 9109 "Invalid access token": https://github.com/divinevideo/divine-mobile/issues/4257
- 403, 10000, and 9109 "Unauthorized to access requested resource", which may be a missing permission too:
  https://github.com/cloudflare/cf-terraforming/issues/754, https://github.com/octodns/octodns-cloudflare/issues/60
- 400, 10000: https://github.com/cloudflare/cf-terraforming/issues/342
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, NamedTuple

# https://developers.cloudflare.com/fundamentals/api/get-started/token-formats/, and the forms before it.
_KEY = re.compile(r"cfk_\w+|[0-9a-f]{37}")
_TOKEN = re.compile(r"cf[ua]t_\w+|[\w-]{40}", re.ASCII)

_BAD_TOKEN, _BAD_EMAIL, _BAD_KEY = 6111, 6102, 6103
_MISSING = {9106, 9107}
_UNKNOWN_PAIR = 9103
_UNAUTHORIZED, _AUTHENTICATION_ERROR = 9109, 10000

Reason = Literal["malformed", "other kind", "missing", "invalid", "address"]

_MALFORMED = "cut off, or pasted with something around it, such as quotes or Bearer. Paste it again"
_OTHER_KIND = {
    True: "By its form an API token was sent as a Global API Key: remove email from the connection's extra",
    False: "By its form a Global API Key was sent as an API token: use an API token, or set email in the "
    "connection's extra",
}


@dataclass(frozen=True)
class Sent:
    """How the secret travels, and whether its form is that of the other kind.

    :param as_key: with ``X-Auth-Email``, as Global API Key; else as API token.
    :param other_kind: it is an API token sent as key, or a Global API Key sent as token.
    """

    as_key: bool = False
    other_kind: bool = False

    @classmethod
    def of(cls, secret: str, email: str | None) -> "Sent":
        other = _KEY if email is None else _TOKEN
        return cls(email is not None, other.fullmatch(secret) is not None)


class Diagnosis(NamedTuple):
    """Why the credentials were refused.

    :param reason: one word for programs; None: Cloudflare does not say.
    :param advice: what is wrong and what to do; empty if that is not known.
    """

    reason: Reason | None = None
    advice: str = ""


def diagnose(status: int, codes: Collection[int], said: str, sent: Sent) -> Diagnosis | None:
    """Return what a refusal says of the credentials; None: it is of something else, such as a permission."""
    said = said.lower()
    if status not in (400, 401, 403):
        return None
    if _UNAUTHORIZED in codes and "from location" in said:
        return Diagnosis(
            "address",
            "The API token's Client IP Address Filtering does not allow that address: add the outgoing "
            'addresses of the workers and of the triggerer and, for "Test connection", of the API server',
        )
    if not {_BAD_TOKEN, _BAD_KEY, _BAD_EMAIL}.isdisjoint(codes):
        return _malformed(codes, sent)
    if not _MISSING.isdisjoint(codes):
        advice = "Cloudflare received no credentials: something between here and Cloudflare has removed them"
        return Diagnosis("missing", advice)
    invalid = (
        status == 401
        or _UNKNOWN_PAIR in codes
        or (_UNAUTHORIZED in codes and "invalid access token" in said)
        or (1000 in codes and "invalid api token" in said)  # 1000 alone is a code of this service for much
    )
    ambiguous = (status == 403 and not {_UNAUTHORIZED, _AUTHENTICATION_ERROR}.isdisjoint(codes)) or (
        _AUTHENTICATION_ERROR in codes and "authentication error" in said
    )
    if (invalid or ambiguous) and sent.other_kind:
        return _other_kind(sent)
    if invalid and sent.as_key:
        return Diagnosis(
            "invalid",
            "The Global API Key and email in the connection's extra do not belong together, or the key was "
            "changed: check both, or use an API token",
        )
    if invalid:
        advice = "The API token is wrong, expired or revoked: check it in the Cloudflare dashboard"
        return Diagnosis("invalid", f"{advice}, and paste it, or a new one, into the connection's password")
    return Diagnosis() if ambiguous else None


def _malformed(codes: Collection[int], sent: Sent) -> Diagnosis:
    if sent.other_kind and (_BAD_KEY if sent.as_key else _BAD_TOKEN) in codes:
        return _other_kind(sent)
    faults = []
    if _BAD_EMAIL in codes:
        faults.append("email in the connection's extra is not an address that Cloudflare accepts")
    if _BAD_KEY in codes:
        faults.append(
            f"The Global API Key is malformed: {_MALFORMED}. If it is an API token, remove email from the "
            "connection's extra"
        )
    if _BAD_TOKEN in codes:
        faults.append(
            f"The API token is malformed: {_MALFORMED}. If it is a Global API Key, set email in the "
            "connection's extra"
        )
    return Diagnosis("malformed", ". ".join(faults))


def _other_kind(sent: Sent) -> Diagnosis:
    return Diagnosis("other kind", _OTHER_KIND[sent.as_key])
