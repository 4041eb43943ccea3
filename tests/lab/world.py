"""The lab's world: its domains, who serves them, who lives there, and what follows from that.

Each row of `DOMAINS` names the server (a listener of postfix.py, exim.py or opensmtpd.py), the
users that are configured there, and `asks`: addresses with the reply that the configuration implies
and the reason that the reply implies. Users and zone of the servers are made from this table;
test_world.py checks the replies, test_verdicts.py the reasons.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from gate.reason import Reason


class Who(Enum):
    """Who asks. The good one has all that servers look for; the stray one has none of it."""

    GOOD = "good"
    STRAY = "stray"


@dataclass(frozen=True, slots=True)
class Ask:
    """One address. `reply`: a pattern for the whole last reply, code first; of RCPT, as a rule."""

    local: str
    reply: str
    reason: Reason
    who: Who = Who.GOOD
    later: Reason | None = None
    """What it is when asked again after `AGAIN` seconds, where that is something else."""
    stage: str = "rcpt"
    """Where the talk ends."""


@dataclass(frozen=True, slots=True)
class Domain:
    """One domain under .test. `server`: its listener, "" for none; `records`: its zone, if unusual.

    `behind`: the listener of the other software that its server asks whether a mailbox is there.
    """

    name: str
    server: str
    users: tuple[str, ...] = ()
    asks: tuple[Ask, ...] = ()
    records: str = "@ MX 10 mx\nmx A {server}"
    behind: str = ""

    @property
    def full(self) -> str:
        """The whole name, as it stands in the DNS."""
        return f"{self.name}.test"


AGAIN: Final = 3.0
"""Seconds after which postgrey lets a triplet pass and postscreen has ended its tests."""

UNDER_WAY: Final = r"450 4\.1\.1 .*unverified address: Address verification in progress$"
"""What verify-soft answers at the first visit."""

OK: Final = r"250 2\.1\.5 Ok$"
ACCEPTED = Reason.ACCEPTED_EMAIL
REJECTED = Reason.REJECTED_EMAIL
BLOCKED = Reason.PROBE_BLOCKED


def known(local: str = "alice", reply: str = OK) -> Ask:
    """A mailbox that is there, at a server that refuses the others."""
    return Ask(local, reply, ACCEPTED)


TENANTS: Final = 8
"""Domains of the strict listener; all have one MX host."""
REGULARS: Final = tuple(f"user{number}" for number in range(12))
STRICT: Final = "@ MX 10 mx.strict-0.test.\nmx A {server}"

POSTFIX: Final = (
    # -- the clients' own domain: their sender is a real mailbox --------------------------------
    Domain("lab", "mailbox", ("probe",), (known("probe"),)),
    # -- the four address classes ---------------------------------------------------------------
    Domain(
        "local",
        "local",
        ("alice", "bob"),
        (
            known(),
            known("bob+news"),
            Ask("nobody", r"550 5\.1\.1 .*User unknown in local recipient table$", REJECTED),
        ),
    ),
    Domain(
        "mailbox",
        "mailbox",
        ("alice", "o'hara", "first.last"),
        (
            known(),
            known("o'hara"),
            known("first.last"),
            Ask("nobody", r"550 5\.1\.1 .*User unknown in virtual mailbox table$", REJECTED),
        ),
    ),
    Domain(
        "alias",
        "alias",
        ("alice",),
        (
            known(),
            Ask("nobody", r"550 5\.1\.1 .*User unknown in virtual alias table$", REJECTED),
        ),
    ),
    Domain(
        "relay",
        "relay",
        ("alice",),
        (
            known(),
            Ask("nobody", r"550 5\.1\.1 .*User unknown in relay recipient table$", REJECTED),
        ),
    ),
    Domain("catchall", "alias", ("",), (Ask("anybody", OK, Reason.ACCEPT_ALL),)),
    # -- what a mailbox may be ------------------------------------------------------------------
    Domain(
        "quota",
        "quota",
        ("alice", "full"),
        (known(), Ask("full", r"552 5\.2\.2 .*Mailbox is full$", Reason.MAILBOX_FULL)),
    ),
    Domain(
        "access",
        "access",
        ("alice", "gone", "later"),
        (
            known(),
            Ask("gone", r"550 5\.2\.1 .*account is disabled$", Reason.MAILBOX_DISABLED),
            Ask("later", r"452 4\.2\.2 .*over quota$", Reason.MAILBOX_FULL),
        ),
    ),
    Domain(
        "soft",
        "soft",
        ("alice",),
        (
            Ask("alice", OK, Reason.UNCONFIRMED),
            Ask(
                "nobody",
                r"450 4\.1\.1 .*User unknown in virtual mailbox table$",
                Reason.GREYLISTED,
            ),
        ),
    ),
    Domain(
        "footer",
        "footer",
        ("alice",),
        (
            known(),
            Ask("nobody", r"550 5\.1\.1 .*User unknown .* Ask the postmaster\.$", REJECTED),
        ),
    ),
    # -- they refuse us -------------------------------------------------------------------------
    Domain(
        "dnsbl",
        "dnsbl",
        ("alice",),
        (
            Ask("alice", r"554 5\.7\.1 Service unavailable; Client host .* blocked", BLOCKED),
            Ask("nobody", r"554 5\.7\.1 Service unavailable; Client host .* blocked", BLOCKED),
        ),
    ),
    Domain(
        "dnsbl-early",
        "dnsbl-early",
        ("alice",),
        (Ask("alice", r"554 5\.7\.1 .*blocked using", BLOCKED, stage="greeting"),),
    ),
    Domain(
        "client",
        "client",
        ("alice",),
        (
            known(),
            Ask("alice", r"450 4\.7\.25 Client host rejected: cannot find", BLOCKED, Who.STRAY),
        ),
    ),
    Domain(
        "client-hard",
        "client-hard",
        ("alice",),
        (
            known(),
            Ask("alice", r"550 5\.7\.25 Client host rejected: cannot find", BLOCKED, Who.STRAY),
        ),
    ),
    Domain(
        "helo",
        "helo",
        ("alice",),
        (
            known(),
            Ask("alice", r"450 4\.7\.1 .*Helo command rejected: Host not", BLOCKED, Who.STRAY),
        ),
    ),
    Domain(
        "helo-early",
        "helo-early",
        ("alice",),
        (
            known(),
            Ask(
                "alice",
                r"550 5\.7\.1 .*Helo command rejected: Host not",
                BLOCKED,
                Who.STRAY,
                stage="ehlo",
            ),
        ),
    ),
    Domain(
        "sender",
        "sender",
        ("alice",),
        (
            known(),
            Ask("alice", r"450 4\.1\.8 .*Sender address rejected: Domain", BLOCKED, Who.STRAY),
        ),
    ),
    Domain(
        "sender-early",
        "sender-early",
        ("alice",),
        (
            known(),
            Ask(
                "alice",
                r"550 5\.1\.8 .*Sender address rejected: Domain",
                BLOCKED,
                Who.STRAY,
                stage="mail",
            ),
        ),
    ),
    Domain(
        "elsewhere",
        "mailbox",
        (),
        (Ask("alice", r"454 4\.7\.1 .*Relay access denied$", Reason.RELAY_DENIED),),
    ),
    Domain(
        "elsewhere-hard",
        "norelay",
        (),
        (Ask("alice", r"554 5\.7\.1 .*Relay access denied$", Reason.RELAY_DENIED),),
    ),
    Domain(
        "sender-callout",
        "sender-callout",
        ("alice",),
        (
            known(),
            Ask("alice", r"450 4\.1\.7 .*Sender address rejected: unver", BLOCKED, Who.STRAY),
        ),
    ),
    # -- the dialogue itself --------------------------------------------------------------------
    Domain(
        "tls",
        "tls",
        ("alice",),
        (
            known(),
            Ask("nobody", r"550 5\.1\.1 .*User unknown", REJECTED),
        ),
    ),
    Domain(
        "old-tls",
        "old-tls",
        ("alice",),
        (Ask("alice", r"530 5\.7\.0 Must issue a STARTTLS", Reason.TLS_FAILED, stage="mail"),),
    ),
    Domain(
        "one-by-one",
        "one-by-one",
        ("alice",),
        (
            known(),
            Ask("nobody", r"550 5\.1\.1 .*User unknown", REJECTED),
        ),
    ),
    Domain(
        "utf8",
        "utf8",
        ("alice", "jörg"),
        (
            known(),
            known("jörg"),
            Ask("käthe", r"550 5\.1\.1 .*User unknown", REJECTED),
        ),
    ),
    Domain(
        "ascii",
        "ascii",
        (),
        # What one who asks all the same is told; the gate does not ask.
        (Ask("jörg", r"555 5\.5\.4 Unsupported", Reason.UNCONFIRMED, stage="mail"),),
    ),
    # Apart from him: who is asked for beside him goes without a random recipient if he has it.
    Domain("ascii-local", "ascii", ("alice",), (known(),)),
    # The second recipient in a minute is one too many: the random one, in a dialogue of the gate.
    Domain("rate", "rate", ("alice",), (Ask("alice", OK, Reason.UNCONFIRMED),)),
    # After the first refusal nothing more is answered but 421. Nobody is apart from alice: his talk
    # ends before the random recipient that she would go without.
    Domain("one-error", "one-error", ("alice",), (known(),)),
    Domain(
        "one-error-nobody",
        "one-error",
        ("alice",),
        (Ask("nobody", r"550 5\.1\.1 .*User unknown", REJECTED),),
    ),
    # -- verification and greylisting -----------------------------------------------------------
    Domain(
        "verify",
        "verify",
        ("alice",),
        (
            known(),
            Ask(
                "nobody",
                r"550 5\.1\.1 .*undeliverable address: host .* said: 550 Unknown user",
                REJECTED,
            ),
        ),
        behind="exim",
    ),
    # Postfix remembers for whom it asked, so each test has to make up a tag of its own; UNDER_WAY.
    Domain("verify-soft", "verify-soft", ("alice",), behind="exim"),
    Domain(
        "grey",
        "grey",
        ("alice",),
        (
            Ask("alice", r"450 4\.2\.0 .*Greylisted", Reason.GREYLISTED, later=ACCEPTED),
            Ask("nobody", r"550 5\.1\.1 .*User unknown", REJECTED),
        ),
    ),
    Domain(
        "grey-first",
        "grey-first",
        ("alice",),
        (
            Ask("alice", r"450 4\.2\.0 .*Greylisted", Reason.GREYLISTED, later=ACCEPTED),
            Ask("nobody", r"450 4\.2\.0 .*Greylisted", Reason.GREYLISTED, later=REJECTED),
        ),
    ),
    # -- for whoever comes often: one host with several tenants, see test_welcome.py ------------
    *(Domain(f"strict-{number}", "strict", REGULARS, records=STRICT) for number in range(TENANTS)),
    Domain("patient", "patient", REGULARS),
    # -- postscreen -----------------------------------------------------------------------------
    Domain(
        "pregreet",
        "pregreet",
        ("alice",),
        (known(),),
    ),
    # Apart from alice: behind her greeting of two seconds he would wait longer than a place is
    # waited for.
    Domain(
        "pregreet-nobody",
        "pregreet",
        ("alice",),
        (Ask("nobody", r"550 5\.1\.1 .*User unknown", REJECTED),),
    ),
    Domain(
        "deep",
        "deep",
        ("alice",),
        (
            Ask(
                "alice",
                r"450 4\.3\.2 Service currently unavailable$",
                Reason.GREYLISTED,
                later=ACCEPTED,
            ),
        ),
    ),
    Domain(
        "screened",
        "screened",
        ("alice",),
        (Ask("alice", r"550 5\.7\.1 Service unavailable; client .* blocked using", BLOCKED),),
    ),
)

EXIM: Final = (
    Domain(
        "exim",
        "exim",
        ("alice",),
        (
            known(reply=r"250 Accepted$"),
            Ask("nobody", r"550 Unknown user$", REJECTED),
            Ask("gone", r"550 This mailbox has been disabled$", Reason.MAILBOX_DISABLED),
            Ask("busy", r"451 The mail store is offline$", Reason.DEFERRED),
        ),
    ),
    Domain(
        "exim-plain",
        "exim-plain",
        ("alice",),
        (
            known(reply=r"250 Accepted$"),
            Ask("nobody", r"550 Unrouteable address$", REJECTED),
        ),
    ),
    Domain(
        "exim-all",
        "exim-all",
        (),
        (Ask("anybody", r"250 Accepted$", Reason.ACCEPT_ALL),),
    ),
    Domain(
        "exim-callout",
        "exim-callout",
        ("alice",),
        (
            known(reply=r"250 Accepted$"),
            Ask("nobody", r"550 Callout verification failed: .*User unknown", REJECTED),
        ),
        behind="relay",
    ),
    Domain(
        "exim-sender",
        "exim-sender",
        ("alice",),
        (
            known(reply=r"250 Accepted$"),
            Ask("alice", r"550 Verification failed for .* Sender verify", BLOCKED, Who.STRAY),
        ),
    ),
    Domain(
        "exim-deny",
        "exim-deny",
        ("alice",),
        (Ask("alice", r"550 Administrative prohibition$", BLOCKED),),
    ),
    Domain(
        "exim-dnsbl",
        "exim-dnsbl",
        ("alice",),
        (Ask("alice", r"550 .* is in a black list at dnsbl\.test$", BLOCKED),),
    ),
    Domain(
        "exim-helo",
        "exim-helo",
        ("alice",),
        (
            known(reply=r"250 Accepted$"),
            Ask("alice", r"550 HELO name does not resolve$", BLOCKED, Who.STRAY, stage="ehlo"),
        ),
    ),
    Domain(
        "exim-rate",
        "exim-rate",
        ("alice",),
        (Ask("alice", r"451 Too many messages", Reason.DEFERRED),),
    ),
    Domain(
        "exim-busy",
        "exim-busy",
        ("alice",),
        (Ask("alice", r"4\d\d Come back when", Reason.DEFERRED, stage="greeting"),),
    ),
    # Hangs up on whoever names somebody unknown.
    Domain(
        "exim-drop",
        "exim-drop",
        ("alice",),
        (
            known(reply=r"250 Accepted$"),
            Ask("nobody", r"550 Unknown user$", REJECTED),
        ),
    ),
    Domain(
        "exim-elsewhere",
        "exim",
        (),
        (Ask("alice", r"550 relay not permitted$", Reason.RELAY_DENIED),),
    ),
    # Exim ends a talk in which the client speaks before its turn: before the greeting, or with a
    # group of commands where no PIPELINING was offered.
    Domain(
        "exim-sync",
        "exim-sync",
        ("alice",),
        (
            known(reply=r"250 Accepted$"),
            Ask("nobody", r"550 Unknown user$", REJECTED),
        ),
    ),
)

OPENSMTPD: Final = (
    Domain(
        "opensmtpd",
        "opensmtpd",
        ("alice",),
        (
            known(reply=r"250 2\.1\.5 Destination address valid: Recipient ok$"),
            # Its words for a name that its table of virtual users does not hold; they could also
            # be about a list that is there.
            Ask("nobody", r"524 5\.2\.4 Mailing list expansion problem: ", REJECTED),
        ),
    ),
    Domain(
        "opensmtpd-list",
        "opensmtpd",
        ("alice",),
        (
            known(reply=r"250 2\.1\.5 Destination address valid: Recipient ok$"),
            Ask("nobody", r"550 Invalid recipient: ", REJECTED),
        ),
    ),
    Domain(
        "opensmtpd-all",
        "opensmtpd",
        ("@",),
        (Ask("anybody", r"250 2\.1\.5 Destination", Reason.ACCEPT_ALL),),
    ),
)

NAMES: Final = (
    # -- where the DNS is what decides, or what leads there -------------------------------------
    Domain("nullmx", "", (), (Ask("alice", "", Reason.NULL_MX, stage="dns"),), "@ MX 0 ."),
    Domain("nomx", "", (), (Ask("alice", "", Reason.NO_MX, stage="dns"),), '@ TXT "no mail"'),
    Domain("missing", "", (), (Ask("alice", "", Reason.INVALID_DOMAIN, stage="dns"),), ""),
    Domain(
        "dangling",
        "",
        (),
        (Ask("alice", "", Reason.NO_MX, stage="dns"),),
        "@ MX 10 gone.missing.test.",
    ),
    # An address where a name belongs: the domain is set up wrongly, which is not for us to judge.
    Domain(
        "literal",
        "",
        (),
        (Ask("alice", "", Reason.DNS_ERROR, stage="dns"),),
        "@ MX 10 {dead}.",
    ),
    Domain(
        "lame",
        "",
        (),
        (Ask("alice", "", Reason.DNS_ERROR, stage="dns"),),
        # A zone of its own, whose server has lost it.
        "@ NS ns\nns A {authority}",
    ),
    Domain(
        "silent",
        "",
        (),
        (Ask("alice", "", Reason.DNS_ERROR, stage="dns"),),
        "@ NS ns\nns A {silent}",
    ),
    Domain(
        "unroutable",
        "",
        (),
        (Ask("alice", "", Reason.MX_UNROUTABLE, stage="dns"),),
        # 240.0.0.0/4: no kernel sends there, should the gate ever try.
        "@ MX 10 mx\nmx A 240.0.0.1",
    ),
    Domain(
        "dead",
        "",
        (),
        (Ask("alice", "", Reason.NO_CONNECT, stage="connect"),),
        "@ MX 10 mx\nmx A {dead}",
    ),
    Domain(
        "implicit",
        "mailbox",
        ("alice",),
        (known(), Ask("nobody", r"550 5\.1\.1 ", REJECTED)),
        "@ A {server}",
    ),
    Domain(
        "second",
        "mailbox",
        ("alice",),
        (known(), Ask("nobody", r"550 5\.1\.1 ", REJECTED)),
        "@ MX 10 dead.lab.test.\n@ MX 20 mx\nmx A {server}",
    ),
    Domain(
        "second-if-busy",
        "mailbox",
        ("alice",),
        (known(), Ask("nobody", r"550 5\.1\.1 ", REJECTED)),
        "@ MX 10 mx.exim-busy.test.\n@ MX 20 mx\nmx A {server}",
    ),
    Domain(
        "second-if-moved",
        "mailbox",
        ("alice",),
        (known(), Ask("nobody", r"550 5\.1\.1 ", REJECTED)),
        "@ MX 10 mx.elsewhere-hard.test.\n@ MX 20 mx\nmx A {server}",
    ),
    Domain(
        "nick",
        "mailbox",
        ("alice",),
        (known(), Ask("nobody", r"550 5\.1\.1 ", REJECTED)),
        "@ CNAME real\nreal MX 10 mx\nmx A {server}",
    ),
    Domain(
        "any.wild",
        "mailbox",
        ("alice",),
        (known(), Ask("nobody", r"550 5\.1\.1 ", REJECTED)),
        "*.wild.test. MX 10 mx.wild.test.\nmx.wild.test. A {server}",
    ),
    Domain(
        "underscore",
        "mailbox",
        ("alice",),
        (known(), Ask("nobody", r"550 5\.1\.1 ", REJECTED)),
        "@ MX 10 mx_1\nmx_1 A {server}",
    ),
    Domain(
        "renamed",
        "mailbox",
        ("alice",),
        (known(), Ask("nobody", r"550 5\.1\.1 ", REJECTED)),
        "@ MX 10 mx\nmx CNAME other\nother A {server}",
    ),
    Domain(
        "crowd",
        "mailbox",
        ("alice",),
        (known(), Ask("nobody", r"550 5\.1\.1 ", REJECTED)),
        "\n".join(
            f"@ MX 10 mx-{n}.a-name-long-enough\nmx-{n}.a-name-long-enough A {{server}}"
            for n in range(60)
        ),
    ),
    Domain(
        "xn--bcher-kva",
        "mailbox",
        ("alice",),
        (known(), Ask("nobody", r"550 5\.1\.1 ", REJECTED)),
    ),
)

DOMAINS: Final = (*POSTFIX, *EXIM, *OPENSMTPD, *NAMES)


@dataclass(frozen=True, slots=True)
class Client:
    """One who asks: his address, his name and his sender."""

    who: Who
    number: int
    helo: str
    mail_from: str


NAMES_OF_CLIENTS: Final = ("command", "engine", "reference", "prober", "peer", "rude", "regular")

CLIENTS: Final = {
    **{
        name: Client(Who.GOOD, number, f"{name}.lab.test", "probe@lab.test")
        for number, name in enumerate(NAMES_OF_CLIENTS, start=1)
    },
    **{
        f"stray-{name}": Client(Who.STRAY, number, "stray.missing.test", "probe@missing.test")
        for number, name in enumerate(NAMES_OF_CLIENTS, start=101)
    },
}
"""Servers that remember who came (postscreen, postgrey) remember an address: each has its own."""
