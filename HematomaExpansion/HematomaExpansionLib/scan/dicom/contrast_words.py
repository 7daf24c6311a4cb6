"""What free text in a CT's headers says about contrast medium.

Descriptions come in many languages and spellings, and the word that matters is often the negation. So each word
becomes a letter that stands for its role, and the meaning is read from the sequence of letters: in
"HEAD W/O IV CONTRAST", a negation is followed by two words for contrast medium.
"""

from __future__ import annotations

import re
import unicodedata
from enum import Enum


class Contrast(Enum):
    """What a text says about contrast medium."""

    GIVEN = "given"
    NONE = "none"
    UNCLEAR = "unclear"
    NOT_STATED = "unsaid"


# All words are in lowercase, without accents.
_MEDIUM = r"(?:contrast\w*|kontrast\w*|con|contr?|ce|cm|km|kl|mc|pdc|mdc|iv|c)"
_SPELLINGS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # Words that look like contrast medium but are not.
        (r"\b(?:high|low|image|soft[ -]?tissue|edge|bone|detail|noise)[ -]*(?:contrast|enhanc)\w*", " word "),
        (r"\bcontrast[ -]*(?:resolution|setting|filter|scale)\w*", " word "),
        (r"\bc[ -]*(?:spine|arm|collar)\b|\d ?(?:cm|mc|c)\b", " word "),
        # Symbols, and abbreviations with periods.
        (r"\bi\. ?v\b\.?", " iv "),
        (r"\bn ?/ ?a\b|\bn\.a\b\.?", " none "),
        (r"\+ ?/ ?-|- ?/ ?\+|±", " with and without "),
        (r"\bw ?[/\\-] ?o(?:ut)?(?!ral)(?=[^a-z]|c|iv|$)|\bwo(?=c?\b|con|iv\b)", " w-o "),
        (rf"\bs ?/ ?(?={_MEDIUM}\b)|\bo\. ?(?=km\b|kontr)", " without "),
        (rf"\bw ?/|\bc ?/ ?(?={_MEDIUM}\b)", " with "),
        (rf"\b{_MEDIUM} ?(?:[(\[] ?\+ ?[)\]]|\+)|\+ ?{_MEDIUM}\b", " with contrast "),
        (rf"\b{_MEDIUM} ?(?:[(\[] ?- ?[)\]]|-(?! ?\w))", " without contrast "),
        (r"\b(?:c|ce|km|cm|iv)-(?!\w)|(?<!\S)-(?:c|ce|km|cm|iv)\b", " without contrast "),
        (r"\b(?:arterial|venous|portal|delayed|late) phase\b", " with contrast "),
        (r"\b(pre|post|non|un)(?=contr|kontr|con\b|enhanc|inj|km\b|iv\b)", r"\1 "),
        # Languages without spaces.
        ("非造影|비조영|平扫|平掃|单纯|単純", " native "),
        ("增强|增強|造影|조영", " contrast "),
    )
)
_TOKEN = re.compile(r"w-o|\w+|[;,()\[\]|]|\.(?=\s|$)|[+&/?]")

_ROLES = tuple(
    (letter, re.compile(words))
    for letter, words in (
        ("|", r"[;,()\[\]|.]"),
        ("S", r"w-o"),  # says none even if nothing follows
        (
            "P",
            r"nat|nativ\w*|natiiv\w*|natief|blanco|plain|simples?|basale|nc|n[ce]*ct|nchct|smdc|kontrast(?:los|frei|siz)\w*|натив\w*",
        ),
        ("R", r"none|nil|na|n|null|false|off|neg|negativ\w*|0+|aucun\w*|nessun\w*|ningun\w*|nenhum\w*|brak"),
        (
            "N",
            r"without|ohne|sans|senza|sin|sem|zonder|utan|uden|uten|bez|без|ilman|no|non|not|kein\w*|geen|ingen|"
            r"pre|before|prior|avant|antes|prima|vor|un",
        ),
        ("W", r"with|w|mit|avec|com|met|med|post|after|nach|apres|tras|dopo|plus"),
        ("k", r"con"),  # "with" in Spanish and Italian, an abbreviation of "contrast" in English
        ("A", r"ct[avp]s?|ctap|vpct|\w*angio(?!m|path)\w*|venogra\w*|veno|phlebo\w*|flebo\w*|arteriogra\w*"),
        ("A", r"perfus\w*|perf|cbf|cbv|mtt|tmax|vnc|vue|premonitoring|ангио\w*"),
        (
            "M",
            r"contrast\w*|kontrast\w*|контраст\w*|km|pdc|mdc|dye|cect|iodine?|jod|bolus\w*|gad\w*|"
            r"inj|inject\w*|injek\w*|iniezione|enhanced|enhancement",
        ),
        ("m", r"c|contr?|ce|cm|mc|kl|iv|intraven\w*"),
        (
            "f",
            r"the|any|of|to|de|di|d|du|produit|mezzo|medio|meio|medium|media|agents?|material|used|given|applied",
        ),
        ("f", r"appliqu\w*|applicable|available|administered|selected|specified|ml|cc"),
        ("o", r"oral\w*|po|per|os|rectal\w*"),
        (
            "u",
            r"unknown|unspecified|unbekannt|inconnu|anonym\w*|removed|deleted|deidentified|redacted|x+|other|[?]",
        ),
        ("&", r"and|und|et|y|e|en|och|og|or|oder|ou|[+&/]"),
        (
            "s",
            r"arterial\w*|arteriell\w*|venous|venos\w*|delay\w*|late|cow|willis|carotid\w*|carotis|dsa|subtract\w*",
        ),
        ("s", r"monitoring"),
        ("0", r"\d\w*"),
    )
)
_BOTH = re.compile(r"[Mmk]*(?:[Wk]&?[NS]|[NS]&[Wk]|SW)[Mmkf]*")
_NONE = re.compile(
    r"[NS]f*(?:Wf*)?[MmkA][Mmkf]*"  # without contrast
    r"|[MmkA]f*\|?R|[Mm]f*[NS](?=[|]|$)"  # contrast: none
    r"|P|S|N(?=[|&0]|$)"
)
_GIVEN = re.compile(r"[Wk]f*[Mm]|Wf*k|[MA]")
_SUSPICIOUS = re.compile(r"[mks]|W$")
_NO_AGENT = re.compile(r"(?=.*[NSPR])[NSPRMmkfo&|0]+")
_ORAL_AGENT = re.compile(r"(?=.*o)[oMf|]+")
_UNKNOWN_AGENT = re.compile(r"[u|]+")


def described_contrast(text: str) -> Contrast:
    """What a free-text description (of a series, protocol or study) says about contrast medium."""
    roles, both = _BOTH.subn("x", _roles(text))
    roles, none = _NONE.subn("x", roles)
    if _GIVEN.search(roles):
        return Contrast.UNCLEAR if none else Contrast.GIVEN
    if both:
        return Contrast.UNCLEAR
    if none:
        return Contrast.NONE
    return Contrast.UNCLEAR if _SUSPICIOUS.search(roles) else Contrast.NOT_STATED


def agent_contrast(text: str) -> Contrast:
    """What the name of a contrast agent says: anything that is not a way of writing "none" is an agent."""
    if not text.strip():
        return Contrast.NOT_STATED
    roles = _roles(text)
    if not roles.strip("|") or _NO_AGENT.fullmatch(roles) or _ORAL_AGENT.fullmatch(roles):
        return Contrast.NONE
    return Contrast.UNCLEAR if _UNKNOWN_AGENT.fullmatch(roles) else Contrast.GIVEN


def _roles(text: str) -> str:
    """The letter of each word and symbol; x for any that say nothing."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    plain = unicodedata.normalize("NFC", "".join(c for c in decomposed if not unicodedata.combining(c)))
    plain = re.sub(r"[\s_^:=*]+", " ", plain).replace("ı", "i")
    for pattern, replacement in _SPELLINGS:
        plain = pattern.sub(replacement, plain)
    tokens: list[str] = _TOKEN.findall(plain)
    return "".join(next((letter for letter, words in _ROLES if words.fullmatch(token)), "x") for token in tokens)
