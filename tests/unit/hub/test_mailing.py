"""E-mail to a real SMTP server: with TLS and sign-in, refused, away, interrupted."""

from __future__ import annotations

import shutil
import smtplib
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import SecretStr, ValidationError
from sqlalchemy import select

from catalog.store.outbox import RETRY_SECONDS, SENDING_SECONDS
from catalog.tables import Outbox
from experiments.model import Reason, RunResult, RunState
from hub.mailing import Mailer
from hub.settings import MailSettings
from tests.unit.catalog.world import DONE, World, build_world

URL = "https://lab.example.no/services/catalog"
ADDRESS = "kari@example.no"
FAILED = RunResult(RunState.FAILED, b"{}", Reason.CELL_FAILED)


class Mailbox:
    """What the server took. ``answer`` is what it says to a recipient or to a message's end; None: it takes it."""

    def __init__(self) -> None:
        self.messages: list[EmailMessage] = []
        self.users: list[bytes] = []
        self.recipient_answer: str | None = None
        self.data_answer: str | None = None

    async def handle_RCPT(
        self, server: Any, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self.recipient_answer:
            return self.recipient_answer
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Session, envelope: Envelope) -> str:
        if self.data_answer:
            return self.data_answer
        content = envelope.content
        assert isinstance(content, bytes)
        message = message_from_bytes(content, policy=policy.default)
        assert isinstance(message, EmailMessage)
        self.messages.append(message)
        return "250 OK"

    def sign_in(self, server: Any, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
        self.users.append(data.login)
        return AuthResult(success=data.password == b"right", handled=False)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
def port(mailbox: Mailbox) -> Iterator[int]:
    """The port of a plain SMTP server on loopback."""
    controller = Controller(mailbox, hostname="127.0.0.1", port=free_port())
    controller.start()
    yield controller.port
    controller.stop()


@pytest.fixture
def world(migrated_sqlite: Path, tmp_path: Path) -> Iterator[World]:
    for part in migrated_sqlite.parent.glob(f"{migrated_sqlite.name}*"):
        shutil.copy(part, tmp_path / part.name)
    built = build_world(f"sqlite:///{tmp_path / migrated_sqlite.name}", tmp_path / "blobs")
    yield built
    built.catalog.close()


def choose(world: World, wish: str = "all", language: str = "nb", who: str = "kari") -> None:
    world.catalog.notices.choose(world.viewer(who), mail=ADDRESS, wish=wish, language=language)


def end_a_run(world: World, result: RunResult = DONE) -> str:
    run = world.submit()
    world.finished(run, result)
    return run.id


def mailer(world: World, port: int, **fields: object) -> Mailer:
    values: dict[str, object] = {"host": "127.0.0.1", "port": port, "starttls": False, "sender": "lab@example.no"}
    return Mailer(world.catalog.outbox, MailSettings(**{**values, **fields}), URL)  # type: ignore[arg-type]


def waiting(world: World) -> list[Outbox]:
    with world.catalog._database.read() as session:
        return list(session.scalars(select(Outbox)))


def test_a_run_that_ended_is_told_by_mail_once(world: World, mailbox: Mailbox, port: int) -> None:
    choose(world)
    run = end_a_run(world)
    assert mailer(world, port).send_due() == 1
    assert mailer(world, port).send_due() == 0
    (message,) = mailbox.messages
    assert message["To"] == ADDRESS
    assert message["From"] == "lab@example.no"
    assert message["Subject"] == "Prøverom: Kjøringen av letter er ferdig"
    body = message.get_content()
    assert f"{URL}/runs/{run}" in body
    assert "2,3" not in body  # what was found stays in the lab
    assert message["Auto-Submitted"] == "auto-generated"


@pytest.mark.parametrize(
    ("language", "words"), [("nb", "Kjøringen av letter feilet"), ("nn", "Køyringa av letter feila"), ("en", "failed")]
)
def test_it_speaks_the_persons_language(world: World, mailbox: Mailbox, port: int, language: str, words: str) -> None:
    choose(world, language=language)
    end_a_run(world, FAILED)
    mailer(world, port).send_due()
    assert words in mailbox.messages[0]["Subject"]
    assert mailbox.messages[0]["Content-Language"] == language


def test_people_get_what_they_chose(world: World) -> None:
    for wish, wanted in (("none", []), ("failures", ["failed"]), ("batches", []), ("all", ["succeeded", "failed"])):
        choose(world, wish)
        before = {row.notice for row in waiting(world)}
        end_a_run(world)
        end_a_run(world, FAILED)
        new = {row.notice for row in waiting(world)} - before
        notices = {n.id: n.state for n in world.catalog.notices.list(world.viewer("kari")).items}
        assert sorted(notices[id] for id in new) == sorted(wanted)
    assert world.catalog.notices.unread(world.viewer("kari")) == 8  # on the pages all of it


def test_who_has_not_given_an_address_gets_none(world: World) -> None:
    end_a_run(world, FAILED)
    assert waiting(world) == []


def test_a_server_that_is_away_is_asked_again_later(world: World, mailbox: Mailbox, port: int) -> None:
    choose(world)
    end_a_run(world)
    away = mailer(world, 1)
    assert away.send_due() == 0
    assert mailer(world, port).send_due() == 0  # not yet
    world.clock.advance(RETRY_SECONDS[0])
    assert mailer(world, port).send_due() == 1
    assert len(mailbox.messages) == 1


@pytest.mark.parametrize("where", ["recipient_answer", "data_answer"])
def test_not_now_is_tried_again_and_never_is_given_up(world: World, mailbox: Mailbox, port: int, where: str) -> None:
    choose(world)
    end_a_run(world)
    setattr(mailbox, where, "451 4.3.0 later")
    sender = mailer(world, port)
    assert sender.send_due() == 0
    world.clock.advance(RETRY_SECONDS[0])
    setattr(mailbox, where, "550 5.1.1 nobody")
    assert sender.send_due() == 0
    (row,) = waiting(world)
    assert (row.attempts, row.given_up_at, row.sent_at) == (2, world.clock(), None)
    assert "550" in row.fault
    setattr(mailbox, where, None)
    world.clock.advance(10 * 24 * 3600)
    assert sender.send_due() == 0


def test_one_refused_recipient_does_not_hold_up_the_next(world: World, mailbox: Mailbox, port: int) -> None:
    choose(world)
    end_a_run(world)
    mailbox.recipient_answer = "550 5.1.1 nobody"
    assert mailer(world, port).send_due() == 0
    mailbox.recipient_answer = None
    end_a_run(world)
    assert mailer(world, port).send_due() == 1


def test_after_the_last_attempt_it_is_given_up(world: World) -> None:
    choose(world)
    end_a_run(world)
    sender = mailer(world, 1)
    for wait in (*RETRY_SECONDS, 0):
        sender.send_due()
        world.clock.advance(wait)
    (row,) = waiting(world)
    assert row.attempts == len(RETRY_SECONDS) + 1
    assert row.given_up_at is not None


def test_an_interrupted_sender_leaves_its_mail_to_the_next_with_the_same_name(
    world: World, mailbox: Mailbox, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose(world)
    end_a_run(world)
    sender = mailer(world, port)

    def killed(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(world.catalog.outbox, "sent", killed)
        with pytest.raises(KeyboardInterrupt):
            sender.send_due()
    assert sender.send_due() == 0  # still in the dead sender's hands
    world.clock.advance(SENDING_SECONDS)
    assert sender.send_due() == 1
    first, second = mailbox.messages
    assert first["Message-ID"] == second["Message-ID"]


def test_many_senders_send_once(world: World, mailbox: Mailbox, port: int) -> None:
    choose(world)
    for _ in range(6):
        end_a_run(world)
    gate = threading.Barrier(4)
    counts: list[int] = []

    def send() -> None:
        gate.wait()
        counts.append(mailer(world, port).send_due())

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == 6
    assert len({m["Message-ID"] for m in mailbox.messages}) == len(mailbox.messages) == 6


def test_news_that_nobody_sent_for_days_is_no_news(world: World, mailbox: Mailbox, port: int) -> None:
    choose(world)
    end_a_run(world)
    world.clock.advance(4 * 24 * 3600)
    assert mailer(world, port).send_due() == 0
    assert mailbox.messages == []


# -- TLS and sign-in -------------------------------------------------------------------------------------------------


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate for 127.0.0.1, with its key, as one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "server.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
def secure_port(mailbox: Mailbox, certificate: Path) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    controller = Controller(
        mailbox,
        hostname="127.0.0.1",
        port=free_port(),
        tls_context=context,
        require_starttls=True,
        authenticator=mailbox.sign_in,
        auth_required=True,
    )
    controller.start()
    yield controller.port
    controller.stop()


def secure(world: World, port: int, certificate: Path | None, signs: str = "right") -> Mailer:
    settings = MailSettings(host="localhost", port=port, user="lab", password=SecretStr(signs), sender="lab@example.no")
    if certificate is None:
        return Mailer(world.catalog.outbox, settings, URL)
    return Mailer(world.catalog.outbox, settings, URL, tls=lambda: ssl.create_default_context(cafile=str(certificate)))


def test_tls_and_sign_in(world: World, mailbox: Mailbox, secure_port: int, certificate: Path) -> None:
    choose(world)
    end_a_run(world)
    assert secure(world, secure_port, certificate).send_due() == 1
    assert mailbox.users == [b"lab"]


def test_a_server_with_a_strange_certificate_gets_neither_password_nor_mail(
    world: World, mailbox: Mailbox, secure_port: int
) -> None:
    choose(world)
    end_a_run(world)
    assert secure(world, secure_port, None).send_due() == 0
    assert mailbox.users == mailbox.messages == []
    (row,) = waiting(world)
    assert "CERTIFICATE_VERIFY_FAILED" in row.fault
    assert row.given_up_at is None


def test_a_refused_sign_in_is_tried_again(
    world: World, mailbox: Mailbox, secure_port: int, certificate: Path, caplog: pytest.LogCaptureFixture
) -> None:
    choose(world)
    end_a_run(world)
    assert secure(world, secure_port, certificate, "wrong").send_due() == 0
    assert smtplib.SMTPAuthenticationError.__name__ in caplog.text
    assert "wrong" not in caplog.text
    assert ADDRESS not in caplog.text
    world.clock.advance(RETRY_SECONDS[0])
    assert secure(world, secure_port, certificate).send_due() == 1


def test_a_server_needs_a_sender() -> None:
    with pytest.raises(ValidationError, match="sender"):
        MailSettings(host="smtp.example.no")
