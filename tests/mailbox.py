"""A real SMTP server on loopback, and what it has received."""

from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.message import Message
from typing import Any

from aiosmtpd.controller import Controller

from tests.real_airflow.deployment import free_port


class Mailbox:
    """What the server has received."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 (aiosmtpd's)
        self.messages.append(message_from_bytes(envelope.content))
        return "250 OK"

    def only(self) -> tuple[str, str, str]:
        """The recipient, the subject and the text of the one message."""
        (message,) = self.all()
        return message

    def all(self) -> list[tuple[str, str, str]]:
        """Recipient, subject and text of each message, in the order in which they came."""
        return [
            (message["To"], message["Subject"].replace("\n", ""), " ".join(_text(message).split()))
            for message in self.messages
        ]


def _text(message: Message) -> str:
    parts = [part for part in message.walk() if part.get_content_maintype() == "text"]
    return "".join(bytes(part.get_payload(decode=True) or b"").decode() for part in parts)


@contextmanager
def mail_server() -> Iterator[tuple[Mailbox, str]]:
    """Yield the mailbox, and the Airflow connection to its server."""
    mailbox = Mailbox()
    controller = Controller(mailbox, hostname="127.0.0.1", port=free_port())
    controller.start()
    try:
        yield mailbox, f"smtp://127.0.0.1:{controller.port}/?disable_ssl=true&disable_tls=true"
    finally:
        controller.stop()
