"""What headers in the field say about contrast medium, with and without it."""

from __future__ import annotations

import pytest
from HematomaExpansionLib.scan.dicom.contrast_words import Contrast, agent_contrast, described_contrast

GIVEN = """
CTA HEAD | CT Angio Brain | ANGIOGRAPHY | CT ANGIOGRAM HEAD/NECK | Angio-CT | HeadAngio
01_Neuro^HeadAngio (Adult) | CTA/CTP | CTV | CT VENOGRAM | CT VENOGRAPHY BRAIN | CTP 5.0 | Brain Perfusion
PERFUSION 4D | VPCT Head | CBF | POST CONTRAST | post-contrast | Postcontrast 5mm | POST CON | POST IV
HEAD POST INJECTION | Post KM | post c | HEAD C+ | C+ | +C HEAD | HEAD (C+) | C (+) | HEAD +C 5mm | IV+ | CE+
contrast (+) | KM+ | HEAD WITH CONTRAST | HEAD W CONTRAST | HEAD W/ CONTRAST | HEAD W/CONTRAST | HEAD W CON
BRAIN W/C | Head w IV contrast | WITH IV | HEAD CONTRAST | IV CONTRAST | i.v. contrast | I.V. Kontrast
CONTRAST ENHANCED | Enhanced head | CECT | mit KM | Schädel mit KM | Schaedel KM | n. KM | nach KM | mit i.v. KM
Kopf mit Kontrastmittel | con contraste | TC CRANEO CON CONTRASTE | CRANIO C/ CONTRASTE | c/c | com contraste
con mdc | dopo mdc | avec injection | après injection | Crâne injecté | Avec PDC | met contrast | med kontrast
с контрастом | 头颅增强 | 造影CT | Head arterial phase | VENOUS PHASE | CTA HEAD W/WO CONTRAST | Test bolus
PREMONITORING | Iodine map | VNC 120kV | CTA NO MIP | CTA, no delay | CT HEAD ANGIO W WO
HEAD POST OP WITH CONTRAST | POST FOSSA W CONTRAST | reformat CTA HEAD
"""
NONE = """
HEAD W/O | HEAD W/O CONTRAST | HEAD WO | BRAIN WO CONTRAST | HEAD W/OUT | HEAD W/OC | HEAD WOC | W/O CON | WOCON
w\\o contrast | HEAD WITHOUT CONTRAST | without IV contrast | CT HEAD WITHOUT | W/O IV | HEAD W/O 5MM
HEAD WO THIN AXIAL | NON CONTRAST | Non-contrast | NONCONTRAST | NON CON | NON-CON HEAD | noncon | non enhanced
nonenhanced | Unenhanced | un-enhanced | NO CONTRAST | no iv contrast | NO IV | NO DYE | NCCT | NCCT HEAD 5mm
NECT | NCHCT | HEAD NCT | PLAIN HEAD | plain CT | pre contrast | PRE-CONTRAST | Precontrast | pre con
before contrast | PRE CTA | prior to contrast | NON CTA | vor KM | avant injection | Contrast: none
CONTRAST NO | contrast (none) | CONTRAST-NONE | CONTRAST OFF | Contrast=0 | C- | HEAD C- | C- 5mm | (C-) | C (-)
KM- | IV- | HEAD -C | Contrast (-) | S/C | s/ contraste | ohne KM | Schädel ohne KM | Kopf ohne | Schädel nativ
NATIV 5.0 | cCT nativ | Native | kein KM | ohne i.v. KM | ohne Kontrastmittel | sans injection | Sans IV
SANS PDC | sans produit de contraste | crâne sans | senza mdc | SENZA CONTRASTO | smdc | sin contraste
TC SIMPLE | sem contraste | zonder contrast | blanco | blanco schedel | utan kontrast | uden kontrast
bez kontrastu | kontrastsız | без контраста | нативное | 头颅平扫 | 単純CT | 비조영 | CTA neg; HEAD W/O
CTA negative, head without | angio: none
"""
NONE += """Hirn o. KM | AX NC HEAD | CCT nat | TC ENCEFALO BASALE | HEAD_WO_CONTRAST | CT HEAD OR BRAIN W/O DYE
Neuro^01_HEAD_NON_CON (Adult) | Head Without Contrast w/ Bone | HEAD C-/5mm
"""
UNCLEAR = """
HEAD WITHOUT/CTA HEAD NECK | NO CONTRAST CTA TO FOLLOW | TDM sans et avec injection | CT HEAD W/O & W/DYE
HEAD W/WO CONTRAST | W WO | W & W/O | HEAD W+WO | with and without contrast | WITHOUT AND WITH | WO/W
mit und ohne KM | avec et sans injection | con y sin contraste | pre and post contrast | PRE/POST | contrast +/-
C+/- | C-/C+ | CTA HEAD W/O | HEAD NON CONTRAST / CTA | HEAD W | CT BRAIN W/ | HEAD POST | Delayed
Circle of Willis | CAROTID | HEAD IV | HEAD CE
"""
NOT_STATED = """
- | HEAD | Head 5.0 H31s | AXIAL BRAIN | HEAD ROUTINE | STROKE | 5mm STD | C-SPINE | HEAD W C-SPINE
HEAD WITH C SPINE | HIGH CONTRAST | Soft tissue contrast | edge enhanced | POST FOSSA | Post op | post-trauma
Post thrombectomy | Cavernous angioma | amyloid angiopathy | Hemangioma | Thin Bone | HEAD 10 CM | 4 cm
Axial, 2.5 mm | w/ tilt | without tilt | ohne Kippung | no tilt | HEAD/NECK | r/o bleed
ORIGINAL PRIMARY AXIAL CT_SOM5 SPI | ctx | Scapula | Concussion | Control | Kontrolle | contusion | Kopf mit HWS
"""
NO_AGENT = """
N/A | n/a | NA | N | NO | No | NON | NONE | none. | NIL | NULL | False | - | -- | . | 0 | 0 ml | 0.0 | OFF
NOT APPLIED | not given | NOT USED | Non contrast | NON-CONTRAST | NONCONTRAST | no contrast | No IV contrast
WITHOUT | WITHOUT CONTRAST | W/O | w/o contrast | WO | None/None | NONE USED | ohne | OHNE KM | KEINE | kein
keines | sans | SANS PDC | aucun | sin | SIN CONTRASTE | ninguno | senza | SENZA MDC | nessuno | sem | nenhum
geen | zonder | ingen | utan | uden | bez | brak | nativ | NATIVE | Plain | unenhanced | NCCT | C- | KM- | oral
ORAL CONTRAST | per os | Contrast none | not applicable | no contrast agent | NO ORAL
"""
AGENT = """
OMNIPAQUE 350 | Omnipaque | IOPAMIDOL | Isovue-370 | VISIPAQUE | Ultravist 300 | Iodine 300 | Iodine | CE | YES
Y | IV | I.V. | IV CONTRAST | CONTRAST | APPLIED | C+ | 100 ml | NON IONIC | Non-ionic | nonionic contrast
NON IONIC IV | ORAL & IV | IV/ORAL | mit KM | KM | Jod | Xenetix | Iomeron 400 | NONIONIC | 1 | with contrast
GADOVIST | post
"""
UNKNOWN_AGENT = "UNKNOWN | ? | ANONYMIZED | XXXX | removed | unspecified"


def lines(table: str) -> list[str]:
    return [text.strip() for line in table.strip("\n").splitlines() for text in line.split(" | ")]


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (GIVEN, Contrast.GIVEN),
        (NONE, Contrast.NONE),
        (UNCLEAR, Contrast.UNCLEAR),
        (NOT_STATED, Contrast.NOT_STATED),
    ],
    ids=["given", "none", "unclear", "unsaid"],
)
@pytest.mark.parametrize("change", [str, str.upper, str.lower], ids=["as written", "capitals", "small"])
def test_descriptions_are_understood(table: str, expected: Contrast, change: type[str]) -> None:
    said = {text: described_contrast(change(text)) for text in lines(table)}
    assert {text: what for text, what in said.items() if what != expected} == {}


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (NO_AGENT, Contrast.NONE),
        (AGENT, Contrast.GIVEN),
        (UNKNOWN_AGENT, Contrast.UNCLEAR),
        (" ", Contrast.NOT_STATED),
    ],
    ids=["none", "an agent", "unknown", "unsaid"],
)
@pytest.mark.parametrize("change", [str, str.upper, str.lower], ids=["as written", "capitals", "small"])
def test_agents_are_understood(table: str, expected: Contrast, change: type[str]) -> None:
    said = {text: agent_contrast(change(text)) for text in lines(table)}
    assert {text: what for text, what in said.items() if what != expected} == {}
