"""`typo`: real slips are mended, real domains are left alone."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gate.address import Address, parse
from gate.lists import pairs, words
from gate.typo import known_slip, suggest


def address(text: str) -> Address:
    found = parse(text)
    assert isinstance(found, Address), found
    return found


def suggested(domain: str) -> str | None:
    """The domain suggested for `domain`, its local part seen to be left alone."""
    whole = suggest(address(f"Jane.Doe+x@{domain}"))
    if whole is None:
        return None
    local, _, meant = whole.partition("@")
    assert local == "Jane.Doe+x"
    return meant


MENDED = {
    "gmail.com": """gmial.com gamil.com gmali.com gmal.com gmil.com gmai.com gmaill.com gmaiil.com
        gmaail.com gmmail.com ggmail.com gnail.com gmsil.com gmaul.com gmaol.com gmaik.com
        gmaio.com gmeil.com gimail.com gamail.com gmale.com gmaii.com gmai1.com gmiail.com
        gmails.com mgail.com gmajl.com gmakl.com gmali.con gmial.con gmail.con gmail.cmo gmail.ocm
        gmail.vom gmail.xom gmail.cim gmail.comm gmail.coom gmail.copm gmail.cpm gmail.c0m gmail.cm
        gmail.om gmail.co gmail.col gmail.net gmail.org gmail.fr gmail.de gmail.es gmail.it
        gmail.co.uk gmail.com.com gmailcom gmail gmailcom.com gnail.co gmil.cm gmaip.com
        gmaill.comm gmal.cmo""",
    "googlemail.com": """googlmail.com googelmail.com goglemail.com googlemial.com googlemal.com
        googlemail.con googlemail.comm gogglemail.com googlemai.con""",
    "hotmail.com": """hotmial.com hotmali.com hotamil.com hotmil.com hotmal.com hotmai.com
        hotmaill.com hotmaiil.com hottmail.com hootmail.com homail.com htmail.com hotail.com
        hotmsil.com hotmaul.com hotmaol.com hotmaik.com hotnail.com hormail.com hoymail.com
        htomail.com ohtmail.com otmail.com hotmeil.com hotmails.com hotamail.com hotmiail.com
        hotmail.con hotmail.cmo hotmail.ocm hotmail.vom hotmail.comm hotmail.cm hotmail.om
        hotmail.co hotmial.con hotmal.con hotmail""",
    "hotmail.co.uk": "hotmial.co.uk hotmal.co.uk hotmai.co.uk hotmail.co.ul hotmail.couk",
    "hotmail.fr": "hotmial.fr hotmal.fr hotamil.fr hotmaill.fr hotmail.frr",
    "hotmail.de": "hotmial.de hotmal.de hotmail.dee",
    "hotmail.it": "hotmial.it hotmali.it",
    "yahoo.com": """yahooo.com yahho.com yahoi.com yaho.com yhaoo.com yhoo.com yaoo.com yaahoo.com
        yyahoo.com yaohoo.com yah00.com yahoo0.com ayhoo.com yshoo.com yahop.com yahoo.con
        yahoo.cmo yahoo.ocm yahoo.vom yahoo.comm yahoo.cm yahoo.om yahoo.co yahoo""",
    "yahoo.co.uk": "yaho.co.uk yahooo.co.uk yhaoo.co.uk yhoo.co.uk yahoo.co.ul yahoo.couk",
    "yahoo.fr": "yahooo.fr yhaoo.fr yaho.fr yahoo.frr",
    "yahoo.com.br": "yaho.com.br yahooo.com.br yahoo.combr yahoo.com.b",
    "yahoo.co.in": "yahooo.co.in yhoo.co.in",
    "outlook.com": """outlok.com outloo.com outlool.com oulook.com outllook.com outloook.com
        otlook.com utlook.com outook.com outlolk.com outkook.com oultook.com outluk.com
        outlook.con outlook.cmo outlook.vom outlook.comm outlook.cm outlook.co outlook""",
    "outlook.de": "outlok.de oulook.de",
    "outlook.fr": "outlok.fr outloook.fr",
    "icloud.com": """iclod.com iclud.com icoud.com iclould.com icluod.com iclooud.com iclou.com
        icloud.con icloud.cmo icloud.comm icloud.cm icloud.co icloud.net icloud.de icliud.com
        ilcoud.com icloud""",
    "protonmail.com": """protonmial.com protonmai.com protonmal.com protonnmail.com protnmail.com
        protonmail.con prtonmail.com porotonmail.com prottonmial.com""",
    "proton.me": "protn.me protonn.me",
    "aol.com": "aol.con aol.cmo aoll.com aol.vom aol",
    "live.com": "live.con live.comm",
    "msn.com": "msn.con msn.cmo",
    "me.com": "me.con",
    "comcast.net": "comast.net comcas.net comcst.net comcasr.net comcast.ner comcast.nte",
    "verizon.net": "verison.net verzion.net verizn.net verizon.nett",
    "att.net": "att.ner att.nett",
    "sbcglobal.net": "sbcgloble.net sbcglbal.net sbcglobal.com sbcgolbal.net",
    "bellsouth.net": "belsouth.net bellsouth.com",
    "btinternet.com": "btinternt.com btinernet.com btinterent.com btinternet.con",
    "wanadoo.fr": "wandoo.fr wanado.fr wanadooo.fr",
    "laposte.net": "lapsote.net laposte.ner lapost.net",
    "t-online.de": "t-onlie.de t-onlin.de tonline.de t-oline.de t-online.dee",
    "gmx.de": "gmx.dee",
    "web.de": "web.dee",
    "freenet.de": "freent.de frenet.de",
    "rediffmail.com": "redifmail.com rediffmial.com reddifmail.com",
    "yandex.ru": "yandx.ru yadnex.ru yanex.ru",
    "rocketmail.com": "rocketmial.com rocktmail.com rocketmail.con",
    # no provider's, but the ending does not exist
    "mycompany.com": "mycompany.con mycompany.cmo mycompany.comm",
    "mail.example.com": "mail.example.con",
    "some-club.org": "some-club.ogr some-club.orgg",
    "university.edu": "university.eud",
    "firma.de": "firma.dee",
    "shop.co.uk": "shop.co.ul shop.couk",
    "loja.com.br": "loja.combr",
}
SLIPS = [(typed, meant) for meant, texts in MENDED.items() for typed in texts.split()]


@pytest.mark.parametrize(("typed", "meant"), SLIPS, ids=[typed for typed, _ in SLIPS])
def test_a_slip_is_mended(typed: str, meant: str) -> None:
    assert suggested(typed) == meant


SILENT = """
gmail.com googlemail.com hotmail.com hotmail.fr hotmail.co.uk hotmail.de hotmail.it hotmail.es
hotmail.nl hotmail.be hotmail.ca live.com live.fr live.nl live.co.uk live.de live.se live.ca
outlook.com outlook.fr outlook.de outlook.es outlook.ie outlook.at outlook.jp msn.com yahoo.com
yahoo.co.uk yahoo.fr yahoo.de yahoo.es yahoo.it yahoo.ca yahoo.com.br yahoo.co.in yahoo.in
yahoo.co.jp yahoo.com.au yahoo.co.id yahoo.co.il yahoo.com.mx yahoo.ie yahoo.ro yahoo.gr ymail.com
rocketmail.com myyahoo.com aol.com aol.de aol.fr aol.co.uk aol.it aim.com icloud.com me.com mac.com
mail.com email.com usa.com gmx.com gmx.de gmx.net gmx.at gmx.ch gmx.fr gmx.co.uk web.de t-online.de
freenet.de arcor.de mail.de email.de proton.me protonmail.com protonmail.ch pm.me tuta.com tuta.io
tutanota.com tutanota.de fastmail.com fastmail.fm zoho.com zoho.eu hey.com hushmail.com posteo.de
posteo.net mailbox.org mailfence.com runbox.com startmail.com duck.com mozmail.com passmail.net
privaterelay.appleid.com simplelogin.com aleeas.com anonaddy.me x.anonaddy.com slmail.me
orange.fr wanadoo.fr free.fr sfr.fr laposte.net neuf.fr bbox.fr libero.it virgilio.it tiscali.it
alice.it tim.it tin.it wp.pl o2.pl onet.pl op.pl interia.pl seznam.cz email.cz post.cz centrum.cz
abv.bg ukr.net i.ua mail.ru bk.ru list.ru inbox.ru inbox.lv ya.ru yandex.ru yandex.com yandex.by
rambler.ru qq.com 163.com 126.com 139.com 189.cn sina.com sina.cn sohu.com naver.com nate.com
daum.net hanmail.net comcast.net verizon.net att.net cox.net charter.net juno.com rogers.com
shaw.ca telus.net sky.com virgin.net ntlworld.com btinternet.com talktalk.net plus.com telenet.be
skynet.be ziggo.nl kpnmail.nl home.nl planet.nl bluewin.ch sapo.pt terra.com uol.com.br
bol.com.br ig.com.br globo.com rediffmail.com bigpond.com xtra.co.nz walla.co.il walla.com
comcast.com verizon.com att.com cox.com charter.com apple.com google.com microsoft.com amazon.com
gail.com emial.com hmail.com fmail.com tmail.com vmail.com email.it emails.com e-mail.com imail.com
smail.com gmail.ru yaboo.com yahoos.com iclouds.com cloud.com outlock.com outback.com handmail.net
hotmaps.com hotmart.com hotel.com hitmail.com hotmetal.com prontomail.com protonmail.net photon.me
proto.me protons.me libro.it liberi.it oranges.fr grange.fr orage.fr orangee.fr alices.it
terre.com online.net planets.nl frontiers.com rodgers.com roger.com never.com navers.com globe.com
global.com spectrum.com optimum.com laposte.fr la-poste.net freenet.com webb.de gmbh.de gma.com
aon.com aol.org alo.com mcn.com msn.net men.com mae.com ma.com mew.com mec.com livel.com love.com
life.com line.com like.com zoho.in zola.com mali.ru main.ru malo.ru ok.ru vk.com tut.by
mit.edu stanford.edu ox.ac.uk tum.de ethz.ch inria.fr cern.ch bbc.co.uk gov.uk nhs.net iki.fi
example.com example.org example.co.uk example.com.br my.company.co.uk something.community comet.net
net.com com.net concast.net verizonwireless.com windows.com yandex.team bücher.de пример.рф почта.рф
a.co b.cm foo.om bar.ne t.co telecom.cm startup.co agency.co conn.com bet.net news.bet
deal.cam people.care code.org rog.org ner.net mac.co.uk
""".split()


@pytest.mark.parametrize("domain", SILENT)
def test_a_real_domain_is_left_alone(domain: str) -> None:
    assert suggested(domain) is None


IMITATIONS = {
    "cyrillic a": ("gmаil.com", "gmail.com"),
    "as a-label": ("xn--gmil-63d.com", "gmail.com"),
    "greek o": ("yahoο.com", "yahoo.com"),
    "dotless i": ("gmaıl.com", "gmail.com"),
    "accent": ("gmáil.com", "gmail.com"),
    "l with stroke": ("gmaił.com", "gmail.com"),
    "script g": ("ɡmail.com", "gmail.com"),
    "all cyrillic but one": ("уаһоо.com", "yahoo.com"),
}


@pytest.mark.parametrize(("typed", "meant"), IMITATIONS.values(), ids=IMITATIONS)
def test_an_imitation_is_a_known_slip_and_keeps_its_own_name(typed: str, meant: str) -> None:
    found = address(f"user@{typed}")
    assert suggest(found) == f"user@{meant}"
    assert known_slip(found.domain) == meant
    assert found.domain.startswith("xn--")


KNOWN = {
    "gmial.com": "gmail.com",
    "hotmial.com": "hotmail.com",
    "yaho.com": None,
    "gmail.com": None,
    "example.com": None,
    "xn--bcher-kva.de": None,
    "xn--": None,
    "xn--a": None,
}


@pytest.mark.parametrize(("domain", "meant"), KNOWN.items(), ids=KNOWN)
def test_known_slip(domain: str, meant: str | None) -> None:
    assert known_slip(domain) == meant


def test_no_known_slip_is_a_domain_on_another_list() -> None:
    slips = pairs("slips.txt")
    assert not set(slips) & (words("providers.txt") | words("real.txt"))
    assert set(slips.values()) <= words("providers.txt")
    assert words("targets.txt") <= words("providers.txt")


@given(st.text(string.ascii_lowercase + string.digits + "-.", min_size=1, max_size=20))
def test_a_suggestion_is_final_and_another_domain(domain: str) -> None:
    found = parse(f"a@{domain}")
    if isinstance(found, Address):
        meant = suggest(found)
        if meant is not None:
            assert meant != found.exact
            assert suggest(address(meant)) is None
