"""The dialogue as one asks it: bytes in, bytes out."""

from __future__ import annotations

from gate.smtp.dialog import Dialog, Stage


def test_a_pipelining_server_is_asked_everything_in_one_write() -> None:
    dialog = Dialog(
        helo="gate.example.org",
        mail_from="probe@example.org",
        recipient="jane@example.com",
        control="qwertz@example.com",
        tls="when-required",
        smtputf8=False,
    )
    dialog.receive(b"220 mx.example.com ESMTP\r\n")
    assert dialog.outgoing() == b"EHLO gate.example.org\r\n"
    dialog.receive(b"250-mx.example.com\r\n250 PIPELINING\r\n")
    assert dialog.outgoing() == (
        b"MAIL FROM:<probe@example.org>\r\nRCPT TO:<jane@example.com>\r\nRSET\r\n"
        b"MAIL FROM:<probe@example.org>\r\nRCPT TO:<qwertz@example.com>\r\nRSET\r\n"
    )
    dialog.receive(b"250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n550 5.1.1 unknown\r\n250 ok\r\n")
    assert dialog.finished
    assert dialog.reusable
    answers = [dialog.reply_to(stage) for stage in (Stage.RCPT, Stage.CONTROL)]
    assert [reply and reply.code for reply in answers] == [250, 550]
    assert dialog.quit() == b"QUIT\r\n"
