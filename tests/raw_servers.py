"""Servers on loopback that misbehave below HTTP, where the sandbox cannot, and clients to meet them with."""

import ipaddress
import json
import os
import socket
import ssl
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from airflow_provider_cfbilling.api.client import CfBillingClient
from airflow_provider_cfbilling.api.settings import Settings
from airflow_provider_cfbilling.sandbox import Sandbox

ACCOUNT_ID = "0123456789abcdef0123456789abcdef"
PATIENCE = 20.0  # seconds that a test waits for what must happen before it fails

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def eventually(condition: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)


def fresh_token() -> str:
    """A token that no other test uses, so that no pause of theirs is kept here."""
    return f"token-{uuid.uuid4().hex}"


@contextmanager
def client_at(base_url: str, **settings: Any) -> Iterator[CfBillingClient]:
    """A client of a server on this machine."""
    defaults = {"account_id": ACCOUNT_ID, "secret": fresh_token(), "connect_timeout": 5, "read_timeout": 10}
    client = CfBillingClient(Settings(**{"base_url": base_url, "max_attempts": 1} | defaults | settings))
    try:
        yield client
    finally:
        client.close()


@contextmanager
def client_of(sandbox: Sandbox, **settings: Any) -> Iterator[CfBillingClient]:
    """A client of the sandbox, with a token of its own."""
    if "secret" not in settings:
        settings["secret"] = fresh_token()
        sandbox.configure(token=settings["secret"])
    with client_at(sandbox.base_url, **settings) as client:
        yield client


class Peer:
    """One connection, seen from the server."""

    def __init__(self, connection: socket.socket, server: "RawServer") -> None:
        self._connection = connection
        self._server = server

    def first_byte(self) -> bytes:
        return self._connection.recv(1)

    def head(self) -> bytes:
        """Receive a request's head, without its body."""
        received = b""
        while not received.endswith(b"\r\n\r\n"):
            byte = self._connection.recv(1)
            if not byte:
                raise ConnectionError("the client has gone")
            received += byte
        self._server.heads.append(received.decode("latin-1"))
        return received

    def request(self) -> bytes:
        """Receive a whole request and return its body."""
        length, body = 0, b""
        for line in self.head().lower().splitlines():
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        while len(body) < length:
            body += self._connection.recv(length - len(body))
        self._server.bodies.append(body)
        return body

    def path(self) -> str:
        """The path and query of the latest request."""
        return self._server.heads[-1].split()[1]

    def send(self, data: bytes) -> None:
        self._connection.sendall(data)

    def trickle(self, data: bytes) -> None:
        """Send byte by byte, and the last one for ever."""
        for byte in data + data[-1:] * 10_000:
            self.send(bytes([byte]))
            if self._server.over.wait(0.02):
                return

    def reset(self) -> None:
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._connection.close()

    def hang(self) -> None:
        """Hold the connection open and say nothing."""
        self._server.over.wait(PATIENCE)


class RawServer:
    """Serves each connection with ``serve``, in a thread of its own, until its ``with`` block ends.

    :param delay: seconds before the TLS handshake.
    :ivar connections: how many have been accepted.
    :ivar heads: the requests' heads, in the order of their arrival.
    :ivar bodies: the bodies of those requests that were received whole.
    """

    def __init__(
        self, serve: Callable[[Peer], object], certificate: Path | None = None, delay: float = 0.0
    ) -> None:
        self._serve = serve
        self._delay = delay
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if certificate else None
        if self._tls and certificate:
            self._tls.load_cert_chain(certificate)
        self._threads: list[threading.Thread] = []
        self.over = threading.Event()
        self.port: int = self._listening.getsockname()[1]
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self.port}"
        self.connections = 0
        self.heads: list[str] = []
        self.bodies: list[bytes] = []

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listening.close()

    def _start(self, target: Callable[..., object], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):  # it is over
            while True:
                connection, _ = self._listening.accept()
                self.connections += 1
                self._start(self._meet, connection)

    def _meet(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE)
        with suppress(OSError):  # the client has had enough
            if self._tls:
                time.sleep(self._delay)
                connection = self._tls.wrap_socket(connection, server_side=True)
            self._serve(Peer(connection, self))
        connection.close()


def responding(*responses: bytes) -> Callable[[Peer], None]:
    """Respond to the requests of a connection in turn, then close it."""

    def serve(peer: Peer) -> None:
        for response in responses:
            peer.request()
            peer.send(response)

    return serve


def http(body: bytes | object, status: int = 200, **headers: object) -> bytes:
    """An HTTP response; a body that is not bytes is sent as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + content


def ok(result: object) -> dict[str, object]:
    return {"success": True, "errors": [], "messages": [], "result": result}


def refused(code: int = 7001, message: str = "Refused") -> dict[str, object]:
    return {"success": False, "errors": [{"code": code, "message": message}], "messages": [], "result": None}


@contextmanager
def refusing_port() -> Iterator[int]:
    """A port of this machine that nothing listens on, and nothing will."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@contextmanager
def silent_port() -> Iterator[int]:
    """A port that takes no more connections and does not say so: connecting times out."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(listening.getsockname())
        try:
            yield listening.getsockname()[1]
        finally:
            for one in waiting:
                one.close()


def key_usage(*, ca: bool) -> x509.KeyUsage:
    """Return what a certificate may be used for. Python 3.13 refuses an authority that does not say so."""
    never = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return x509.KeyUsage(digital_signature=True, key_cert_sign=ca, crl_sign=ca, **never)


def write_certificate(path: Path) -> Path:
    """Write a key and a certificate for 127.0.0.1, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sandbox")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(key_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    os.chmod(path, 0o600)
    return path
