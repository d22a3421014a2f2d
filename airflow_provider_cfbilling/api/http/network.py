"""How the environment has requests travel: through which proxy, and trusting whose certificates.

As `requests` reads it, but checked when a client is made. What is wrong here no retry can heal, and what
`requests` and urllib3 would raise later, at the charge too, shows the proxy's password.
"""

import importlib.util
import os
import re
import ssl
from base64 import b64encode
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

from requests.utils import get_environ_proxies, select_proxy
from urllib3.util import parse_url

from airflow_provider_cfbilling.api.errors import CfBillingInvalidRequestError
from airflow_provider_cfbilling.api.http.text import one_line

# In the order in which `requests` reads them.
_CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
_SOCKS = ("socks4", "socks4a", "socks5", "socks5h")
_SCHEMES = ("http", "https", *_SOCKS)
_HOST = re.compile(r"[\w.:%-]+")


@dataclass(frozen=True)
class Network:
    """What of the environment matters to one base URL.

    :param proxies: as `requests` takes them; empty: straight.
    :param verify: a file or folder of certificates, or True: those that `requests` brings.
    :param via: the proxy as a message names it, without its credentials; empty: none.
    :param secrets: the proxy's user and password in the forms that they may be met in.
    """

    proxies: dict[str, str] = field(repr=False)
    verify: bool | str
    via: str = ""
    secrets: tuple[str, ...] = field(default=(), repr=False)


def network_for(base_url: str) -> Network:
    """Read the environment, for requests to ``base_url``.

    :raises CfBillingInvalidRequestError: a proxy or certificates are given with which nothing can be sent,
        naming the variable. What a proxy's variable holds is never shown.
    """
    scheme = urlsplit(base_url).scheme
    verify = _certificates() if scheme == "https" else True
    try:
        proxy = select_proxy(base_url, get_environ_proxies(base_url))
    except Exception as error:  # of any kind: it may show what it could not read
        raise CfBillingInvalidRequestError(
            f"The environment's proxies (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY) cannot be read: "
            f"{type(error).__name__}. Nothing was sent"
        ) from None
    if not proxy:
        return Network({}, verify)
    variable = _variable_of(proxy, scheme)
    # `requests` takes the name in front of a colon for the scheme if there is none.
    url = proxy if "://" in proxy or proxy.lower().startswith(("http:", "https:")) else f"http://{proxy}"
    try:
        parts = _checked(url)
    except _UnusableProxyError as problem:
        raise CfBillingInvalidRequestError(
            f"The proxy in the environment's {variable} cannot be used: {problem}. Write it as "
            "http://user:password@host:port, and percent-encode special characters of user and password "
            "(# as %23). Nothing was sent"
        ) from None
    if parts.scheme in _SOCKS and importlib.util.find_spec("socks") is None:
        raise CfBillingInvalidRequestError(
            f"The proxy in the environment's {variable} cannot be used: for SOCKS, pip install PySocks. "
            "Nothing was sent"
        )
    via = f"the proxy {parts.netloc.rpartition('@')[2]} of {variable}"
    return Network({scheme: url}, verify, via, _secrets(parts))


class _UnusableProxyError(ValueError):
    """Says why, without a part of the value: none of them is sure to be no part of the password."""


def _checked(proxy: str) -> SplitResult:
    """Return the parts of a proxy's URL, if urllib3 and urllib, which `requests` both uses, agree on them."""
    try:
        url, parts = parse_url(proxy), urlsplit(proxy)
        ports = {url.port, parts.port}
    except Exception:  # of any kind: its text may show the password
        raise _UnusableProxyError("it cannot be read as a URL") from None
    if url.scheme not in _SCHEMES:
        raise _UnusableProxyError(f"its scheme is none of {', '.join(_SCHEMES)}")
    if not url.host or not _HOST.fullmatch(parts.hostname or "") or not proxy.isprintable():
        raise _UnusableProxyError("it has no host, or one with blanks or line breaks")
    # What comes behind the host is most often the end of a password: it began before a `/`, `?` or `#`.
    if url.path not in (None, "", "/") or parts.path not in ("", "/") or url.query or url.fragment:
        raise _UnusableProxyError("it goes on behind host and port")
    if len(ports) > 1 or 0 in ports:
        raise _UnusableProxyError("its port is none")
    return parts


def _variable_of(proxy: str, scheme: str) -> str:
    """Name the variable that a proxy comes from, as it is spelled."""
    for wanted in (f"{scheme}_proxy", "all_proxy"):
        for name, value in os.environ.items():
            if name.lower() == wanted and value == proxy:
                return name
    return "proxy settings"  # of the operating system


def _secrets(parts: SplitResult) -> tuple[str, ...]:
    user, password = parts.username or "", parts.password or ""
    pair = f"{unquote(user)}:{unquote(password)}"
    # `requests` sends it in Latin-1; what does not fit is refused when the connection is set up.
    sent = {b64encode(pair.encode(encoding, "replace")).decode() for encoding in ("latin-1", "utf-8")}
    forms = {user, password, unquote(user), unquote(password)}
    return tuple((forms | sent) - {""}) if user or password else ()


def _certificates() -> bool | str:
    variable = next(filter(os.environ.get, _CERTIFICATES), None)
    if variable is None:
        return True
    path = os.environ[variable]
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if os.path.isdir(path):
            context.load_verify_locations(capath=path)
        else:
            context.load_verify_locations(cafile=path)
    except OSError as error:
        raise CfBillingInvalidRequestError(
            f"The certificates of the environment's {variable} cannot be read: {one_line(path)}: "
            f"{error.strerror or type(error).__name__}. Nothing was sent"
        ) from None
    return path
