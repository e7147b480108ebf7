"""Abbreviations that are written with a full stop and do not end a sentence. Data, in lower case.

Three kinds need no entry, since `sentences` has rules for them: single letters ("J."), letters with
stops between them ("z.B.", "e.g."), and short words without a vowel ("Dr.", "bzw."). Those that may
end a sentence ("etc.", "usw.") are left out: a lower-case letter after them shows that it goes on.
So are those that are common words ("red.", "sir.").
"""

from __future__ import annotations

__all__ = ["ALWAYS", "BEFORE_NUMBERS"]


def _words(*texts: str) -> frozenset[str]:
    return frozenset(word for text in texts for word in text.split())


ALWAYS = _words(
    # English, and titles that are international
    """
    prof profs dipl ing hon rev gen col capt cmdr lieut maj sen gov rep pres supt adm sgt messrs
    amb atty insp esq approx ca cca circa viz incl excl esp resp appt dept univ inst assn bros inc
    corp co al seq ibid cit ave blvd
    """,
    # German
    """
    frl mag evtl inkl exkl einschl ausschl ggfs sog geb gest verh entspr allg bes eigtl
    urspr insb lfd mio tsd aufl hrsg verf bearb übers abt versch zool südl nördl östl westl
    """,
    # French, Spanish, Portuguese, Italian
    """
    mme mlle msgr env ex éd trad av sra srta sres srtas dra dras dña lic excmo exmo exma ilmo ilma
    apr ej aprox ap dto dpto izq pág págs ud uds vd vds ee uu avv sig dott geom ecc es pag pagg tel
    cfr dir amm
    """,
    # Dutch, Swedish, Polish, Czech, Finnish, Turkish, Vietnamese, Indonesian
    """
    mevr mej drs bijv evt enz inż ul napr np tzn tzw godz pow woj zob např tzv popř event příp
    esim ym örn krş çev haz tp ts ths gs pgs bpk ibu
    """,
    # Russian, Greek
    """
    проф акад доц инж св им ул пер просп пл наб обл гос тов гр зам зав корп тыс руб млн млрд коп см
    ср напр прим ред изд соч κος κα καθ δρ αγ δηλ βλ αρ λεωφ
    """,
    # Hindi, and the names of Latin letters, as initials are written in Hindi and in Urdu
    """
    डॉ श्री श्रीमती प्रो पं कु रु सं मि
    ए बी सी डी ई एफ एच आई जे के एल एम एन ओ पी क्यू आर एस टी यू वी डब्ल्यू एक्स वाई ज़ेड
    اے بی سی ڈی ای ایف ایچ آئی جے کے ایل ایم این او پی کیو آر ایس ٹی یو وی ڈبلیو ایکس وائی
    """,
)

BEFORE_NUMBERS = _words(
    """
    no nos n° nr nrn num núm núms art arts abs kap abb tab fig figs vol vols ch chap sec par para pp
    ss bd bde ziff anm ausg lit eq eqs ed op
    jan feb febr mar mär apr jun jul aug sep sept oct okt nov dec dez janv févr avr juil déc ene
    abr dic gen giu lug ott
    рис стр гл табл ст σελ str odst
    """
)
