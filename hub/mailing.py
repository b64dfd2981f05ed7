"""Sending the e-mails that wait in the catalog's outbox."""

from __future__ import annotations

import logging
import smtplib
import ssl
import threading
from collections.abc import Callable
from email.message import EmailMessage
from email.utils import format_datetime

from catalog.mail_texts import mail_text
from catalog.store.outbox import Mail, OutboxQueue
from hub.settings import MailSettings

log = logging.getLogger("proverom.mail")

LOOK_SECONDS = 5.0
SMTP_SECONDS = 30.0
_MOST_AT_ONCE = 100  # e-mails over one connection


class Mailer:
    """``run(stop)`` loops; several may run at once, in any process: each e-mail is in one sender's hands at a time.

    An e-mail whose sending was interrupted goes out again, with the same Message-ID. ``lab_url`` is the address of the
    catalog's pages, without a slash at the end; ``tls`` is for tests, a context that trusts their server.
    """

    def __init__(
        self,
        outbox: OutboxQueue,
        settings: MailSettings,
        lab_url: str,
        *,
        tls: Callable[[], ssl.SSLContext] = ssl.create_default_context,
    ) -> None:
        self._outbox = outbox
        self._settings = settings
        self._lab_url = lab_url
        self._tls = tls

    def run(self, stop: threading.Event) -> None:
        """Send until ``stop`` is set. Without a server in the settings nothing is ever sent."""
        while self._settings.host and not stop.is_set():
            try:
                self.send_due(stop)
            except Exception:
                log.exception("Sending e-mail failed; trying again")
            stop.wait(LOOK_SECONDS)

    def send_due(self, stop: threading.Event | None = None) -> int:
        """Send what is due now, and return how many e-mails the server has taken."""
        sent = 0
        server: smtplib.SMTP | None = None
        try:
            while sent < _MOST_AT_ONCE and not (stop and stop.is_set()) and (mail := self._outbox.take()) is not None:
                try:
                    server = server or self._connect()
                    refused = server.send_message(self._message(mail))
                except (OSError, smtplib.SMTPException) as error:
                    self._failed(mail, error)
                    if not isinstance(error, smtplib.SMTPRecipientsRefused | smtplib.SMTPDataError):
                        return sent  # the server itself is at fault: the next look makes a new connection
                else:
                    if refused:
                        self._failed(mail, smtplib.SMTPRecipientsRefused(refused))
                        continue
                    self._outbox.sent(mail)
                    sent += 1
        finally:
            if server is not None:
                _close(server)
        return sent

    def _connect(self) -> smtplib.SMTP:
        settings = self._settings
        server = smtplib.SMTP(settings.host, settings.port, timeout=SMTP_SECONDS)
        try:
            if settings.starttls:
                server.starttls(context=self._tls())
            if settings.user:
                server.login(settings.user, settings.password.get_secret_value())
        except BaseException:
            _close(server)
            raise
        return server

    def _message(self, mail: Mail) -> EmailMessage:
        text = mail_text(mail.notice, mail.language, self._lab_url)
        message = EmailMessage()
        message["Subject"] = text.subject
        message["From"] = self._settings.sender
        message["To"] = mail.address
        message["Date"] = format_datetime(mail.notice.at)
        # The same at each attempt, so that a mailbox that got it twice can show it once.
        message["Message-ID"] = f"<{mail.notice.id.lower()}@{self._settings.sender.partition('@')[2]}>"
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(text.body)
        message["Content-Language"] = mail.language  # set_content takes all of its kind away
        return message

    def _failed(self, mail: Mail, error: Exception) -> None:
        codes = _codes(error)
        for_good = bool(codes) and all(500 <= code < 600 for code in codes)
        again = self._outbox.failed(mail, f"{type(error).__name__}: {error}", for_good=for_good)
        # The address is the person's own affair: the log has the notice.
        log.warning(
            "The e-mail for notice %s was not taken (%s %s); %s",
            mail.notice.id,
            type(error).__name__,
            ", ".join(map(str, codes)) or error,
            "trying again later" if again else "given up",
        )


def _codes(error: Exception) -> list[int]:
    """Return what the server answered about this one e-mail; nothing if it is the connection that failed."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return [int(code) for code, _ in error.recipients.values()]
    return [int(error.smtp_code)] if isinstance(error, smtplib.SMTPDataError) else []


def _close(server: smtplib.SMTP) -> None:
    try:
        server.quit()
    except (OSError, smtplib.SMTPException):
        server.close()
