"""Wordings nobody collected: sentences put together from parts, and said in thirty languages.

A row that was written for one sentence must read its neighbours too, and none may say "no such
mailbox" while another cause stands beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gate.smtp.classify import classify
from gate.smtp.dialog import Stage
from gate.smtp.explain import three_way
from gate.smtp.reply import Reply

MADE_UP = Path(__file__).parent.parent / "replies" / "made_up.txt"

SUBJECTS = (
    "mailbox,mail box,user,username,user name,recipient,account,address,customer,inbox,addressee,"
    "receiver,email address,e-mail address,email account,mail account,recipient address,alias,"
    "mailbox name,user account,subscriber"
).split(",")
PEOPLE = [*SUBJECTS, "person", "member", "email", "e-mail", "local part"]

SAID_OF = (
    "unknown,is unknown,was not found,not found,could not be found,cannot be found,can't be found,"
    "does not exist,doesn't exist,doesnt exist,do not exist,does not exists,not exist,is invalid,"
    "is not valid,not valid,not known here,is not known,not listed in directory,not in directory,"
    "is not listed in the directory,is not in our directory,has been deleted,was deleted,"
    "has been removed,is no longer valid,no longer exists,no longer active,is not active,"
    "is inactive,has been disabled,is disabled,is suspended,has been closed,is closed,"
    "has been deactivated,not recognized,is not recognised,unrecognized,is nonexistent,"
    "non-existent,not registered,isn't registered,could not be located,not present,not here,"
    "no longer in use,does not exist on this server,is undeliverable,has expired,terminated,"
    "is gone,has moved,not configured here,is not local,not on file,never existed,not provisioned,"
    "has been cancelled,doesn't live here,not in our records,is dead"
).split(",")
ASKED_FOR = (
    "no such {},unknown {},invalid {},no {} by that name,no {} here by that name,no such {} here,"
    "bad {},wrong {},nonexistent {},there is no such {},we have no such {},I know no such {},"
    "there is no {} by that name here,cannot find {},can't find that {},could not find {},"
    "unable to find {},could not locate {},not a valid {},not a known {},not our {},disabled {},"
    "undeliverable {},inactive {},unrecognized {},no matching {},we do not know this {}"
).split(",")
FORMS = [
    "550 {}",
    "550 5.1.1 {}",
    "550 5.1.1 <jane@example.com>: {}",
    "550 <jane@example.com>... {}",
    "550 5.1.1 Recipient address rejected: {}",
    "553 {} (#5.1.1)",
    "550 Sorry, {}.",
    "554 5.7.1 <jane@example.com>: Recipient address rejected: {}",
    "550 Requested action not taken: {}",
    "551 {}: jane@example.com",
]

ABSENT = [
    "5.1.1 User unknown",
    "User unknown",
    "5.1.1 <jane@example.com>: Recipient address rejected: User unknown",
    "mailbox not found",
    "5.7.1 Recipient not found",
    "no such user here",
    "address does not exist",
    "invalid recipient",
    "account is disabled",
    "Requested action not taken: mailbox unavailable",
    "5.2.1 mailbox disabled",
    "Unrouteable address",
]
OTHER_CAUSES = (
    "sender verify failed,sender address rejected,your IP is blocked,blocked by policy,"
    "message rejected due to policy,blocked using zen.spamhaus.org,your IP has a poor reputation,"
    "IP listed in a DNSBL,too many connections,too many invalid recipients,rate limit exceeded,"
    "try again later,please try again in 300 seconds,temporarily unavailable,relay access denied,"
    "relaying denied,relay not permitted,authentication required,SPF check failed,"
    "DKIM check failed,DMARC policy,reverse DNS lookup failed,no PTR record,HELO command rejected,"
    "mailbox full,quota exceeded,over quota,TLS required,or access denied,or not allowed,"
    "or rejected by policy,or your message was refused,or you are not authorized to see it,"
    "or the sender is blocked,or the mailbox is full,or greylisted,greylisted,virus detected,"
    "message looks like spam,client host rejected,see https://www.spamhaus.org/query/ip/192.0.2.1,"
    "access denied for your network,connection refused,your message was blocked,"
    "message content rejected,you are not allowed to send,not accepting mail from you,"
    "recipient refused your mail,from address invalid,bulk mail refused,LDAP server down,"
    "directory lookup failed,service unavailable,temporary failure,cannot verify at this time,"
    "could not verify recipient,backend timeout,registration is required,caught by our filter,"
    "configuration error,mail loop detected,for staff only,no MX record"
).split(",")
ABOUT_SOMETHING_ELSE = (
    "Message rejected,Mail was refused,Domain not served here,Command rejected,Access denied,"
    "System error,Transaction failed,Go away,No thanks,Delivery failed,Recipient not allowed,"
    "Remote delivery disabled,List submissions not accepted,Not welcome,Not authorized to post,"
    "Closed mailing list,On the suppression list,The address is ambiguous,Bulk mail is not read,"
    "Forged headers,Address has not been verified,Contact postmaster@example.com,Wait for my reply"
).split(",")
WITHOUT_A_SUBJECT = ["", "Nope", "Rejected", "unknown", "mailbox rejected", "entirely novel words"]
JOINED = [
    "550 {0}: {1}",
    "550 {0}; {1}",
    "550 {0}. {1}.",
    "550 {0} ({1})",
    "550 {0} - {1}",
    "550 {0}, {1}",
    "550 {1}: {0}",
]
NOT_OF_A_MAILBOX = ["5.1.7", "5.1.8", "5.3.4", "5.4.6", "5.5.4", "5.6.0", "5.7.25", "5.7.509"]


def meaning(line: str) -> str:
    return three_way(classify(Stage.RCPT, Reply(int(line[:3]), (line[4:],))))


def sentences() -> Iterator[str]:
    for subject in PEOPLE:
        yield from (f"{subject} {said}" for said in SAID_OF)
        yield from (asked.replace("{}", subject) for asked in ASKED_FOR)
    yield from (f"{s} {said}" for s in SUBJECTS for said in ("is not available", "unavailable"))


@pytest.mark.parametrize("form", FORMS)
def test_nobody_is_there_in_all_these_words(form: str) -> None:
    wrong = [line for said in sentences() if meaning(line := form.format(said)) != "not_found"]
    # "Sorry, address unavailable": too short to say whose
    assert [line for line in wrong if "address" not in line or "available" not in line] == []


@pytest.mark.parametrize("form", FORMS)
def test_a_4xx_leaves_all_of_them_open(form: str) -> None:
    later = form.replace("55", "45", 1).replace(" 5.", " 4.")
    assert {meaning(later.format(said)) for said in sentences()} == {"undetermined"}


@pytest.mark.parametrize("joined", JOINED)
def test_another_cause_beside_it_leaves_it_open(joined: str) -> None:
    lines = [joined.format(absent, cause) for absent in ABSENT for cause in OTHER_CAUSES]
    assert [line for line in lines if meaning(line) == "not_found"] == []


@given(
    st.sampled_from(list(sentences())),
    st.sampled_from(OTHER_CAUSES),
    st.sampled_from(JOINED),
    st.booleans(),
)
def test_whatever_the_sentence_and_however_it_is_cut(
    said: str, cause: str, joined: str, cut: bool
) -> None:
    line = joined.format(said, cause)
    parts = tuple(line[4:].split(" ", 2)) if cut else (line[4:],)
    assert three_way(classify(Stage.RCPT, Reply(550, parts))) != "not_found"


@pytest.mark.parametrize("enhanced", NOT_OF_A_MAILBOX)
def test_a_code_that_is_about_something_else_outweighs_the_words(enhanced: str) -> None:
    plain = [absent.removeprefix("5.1.1 ") for absent in ABSENT if not absent.startswith("5.")]
    assert {meaning(f"550 {enhanced} {said}") for said in plain} == {"undetermined"}


def test_a_code_of_a_missing_mailbox_breaks_the_tie_only_of_words_that_name_nothing_else() -> None:
    assert {meaning(f"550 5.1.1 {said}") for said in ABOUT_SOMETHING_ELSE} == {"undetermined"}
    assert {meaning(f"550 5.1.1 {said}") for said in WITHOUT_A_SUBJECT} == {"not_found"}


def test_wordings_made_up_in_thirty_languages() -> None:
    wrong = []
    for row in MADE_UP.read_text(encoding="utf-8").splitlines():
        if row.startswith("#"):
            continue
        expected, language, said = row.split(" ", 2)
        forms = ["{}"] if language == "en" else ["550 {}", "550 5.1.0 <jane@example.com>: {}"]
        wrong += [row for form in forms if meaning(form.format(said)) != expected]
    assert wrong == []
