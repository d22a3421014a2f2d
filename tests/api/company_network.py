"""What stands between workers and Cloudflare in a company: its own authority, and a proxy with a password."""

import base64
import ipaddress
import os
import select
import socket
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.raw_servers import PATIENCE, key_usage

VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


class Authority:
    """A certificate authority that no operating system trusts, and servers' certificates from it.

    :ivar bundle: its certificate, as ``REQUESTS_CA_BUNDLE`` wants it.
    """

    def __init__(self, folder: Path, name: str = "Company") -> None:
        self._folder, self._name = folder, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._sign(name, self._key.public_key(), ca=True)
        self.bundle = folder / f"{name}.pem"
        self.bundle.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def certificate_for(self, *names: str) -> Path:
        """Write a server's key and certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(names[0], key.public_key(), *names)
        path = self._folder / f"{self._name} {names[0]}.pem"
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
        os.chmod(path, 0o600)
        return path

    def _sign(
        self, subject: str, key: ec.EllipticCurvePublicKey, *names: str, ca: bool = False
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        signing, issuer = self._key.public_key(), _name(self._name)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_name(subject))
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(key_usage(ca=ca), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        )
        if names:
            subjects = x509.SubjectAlternativeName([_subject(name) for name in names])
            certificate = certificate.add_extension(subjects, critical=False)
        return certificate.sign(self._key, hashes.SHA256())


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)])


def _subject(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


class ConnectProxy:
    """A proxy that opens tunnels for who knows its password (Basic), each to ``target``, whatever its host.

    :param echoes: its refusal repeats the credentials that it was sent.
    :ivar opened: where tunnels were opened to.
    :ivar refused: how many were not.
    """

    def __init__(self, target: int, user: str, password: str, echoes: bool = False) -> None:
        self._target = target
        self._wanted = "Basic " + base64.b64encode(f"{user}:{password}".encode("latin-1")).decode()
        self._echoes = echoes
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self.port: int = self._listening.getsockname()[1]
        self.opened: list[str] = []
        self.refused = 0
        self._over = threading.Event()

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listening.close()

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):  # it is over
            while True:
                connection, _ = self._listening.accept()
                self._start(self._serve, connection)

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client:
            client.settimeout(PATIENCE)
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += client.recv(1) or b"\r\n\r\n"
            request, *lines = head.decode("latin-1").strip().splitlines()
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            given = headers.get("proxy-authorization", "")
            if given != self._wanted:
                self.refused += 1
                client.sendall(self._refusal(given).encode("latin-1"))
                return
            self.opened.append(request.split()[1])
            with socket.create_connection(("127.0.0.1", self._target)) as server:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                self._pump(client, server)

    def _refusal(self, given: str) -> str:
        echo = ""
        if self._echoes and given:
            echo = f" {given} {base64.b64decode(given.partition(' ')[2]).decode('latin-1')}"
        return (
            f"HTTP/1.1 407 Proxy Authentication Required{echo}\r\n"
            f'Proxy-Authenticate: Basic realm="company{echo}"\r\nContent-Length: 0\r\n\r\n'
        )

    def _pump(self, one: socket.socket, other: socket.socket) -> None:
        beyond = {one: other, other: one}
        while not self._over.is_set():
            for ready in select.select([one, other], [], [], 0.1)[0]:
                data = ready.recv(65536)
                if not data:
                    return
                beyond[ready].sendall(data)
