"""What the headers of a CT series reveal before its pixels are read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pydicom

from ...errors import InputError
from .contrast_words import Contrast, agent_contrast, described_contrast
from .files import number, number_or_none, values, words

_GIVE_PLAIN = "Give the non-contrast head CT."
_AMOUNTS = ("ContrastBolusVolume", "ContrastBolusTotalDose", "ContrastFlowRate")
_STUDY = ("StudyDescription", "RequestedProcedureDescription", "PerformedProcedureStepDescription")
_OTHER_QUANTITIES = {"MGML", "Z_EFF", "ED", "EDW", "PCT"}
"""RescaleType values for iodine, effective atomic number, electron density and percent; a CT has HU."""


def check_headers(headers: Sequence[pydicom.Dataset]) -> list[str]:
    """Sentences for the user about the headers of one CT series.

    Raises:
        InputError: the series is multi-frame, not in Hounsfield units, or contrast-enhanced.
    """
    if any((number(header, "NumberOfFrames") or 1) > 1 for header in headers):
        raise InputError(
            "The scan is stored as a multi-frame (enhanced) DICOM file, which is not supported. "
            "Export it as single-frame CT images, or as NIfTI."
        )
    _check_units(headers)
    return _contrast_notes(headers)


def _check_units(headers: Sequence[pydicom.Dataset]) -> None:
    """Refuse values that are not HU, and series in which only some slices say how to convert to HU."""
    if any(words(header, "RescaleType").upper() in _OTHER_QUANTITIES for header in headers):
        raise InputError(
            "The scan is a map computed from a dual-energy CT, not Hounsfield units. Give the original CT series."
        )
    for keyword in ("RescaleIntercept", "RescaleSlope"):
        silent = sum(number(header, keyword) is None for header in headers)
        if 0 < silent < len(headers):
            raise InputError(
                f"{silent} of the {len(headers)} slices {'does' if silent == 1 else 'do'} not say how the stored "
                "values become Hounsfield units (rescale slope or intercept). Export the series again."
            )
        if keyword == "RescaleSlope" and any(number(header, keyword) == 0 for header in headers):
            raise InputError("The scan's rescale slope is zero, so its values are lost. Export the series again.")


def _contrast_notes(headers: Sequence[pydicom.Dataset]) -> list[str]:
    """A warning if the headers leave open whether contrast medium was given.

    The agent and the series description decide; if they say nothing, the protocol does. The study description
    counts least, because a study often holds series of both kinds.
    """
    agent = _agent(headers)
    series = _said(_texts(headers, "SeriesDescription"))
    if Contrast.GIVEN in {described_contrast(text) for text in _texts(headers, "ImageType")}:
        series = Contrast.GIVEN
    protocol = _said(_texts(headers, "ProtocolName"))
    study = _said({text for keyword in _STUDY for text in _texts(headers, keyword)})
    if agent is Contrast.GIVEN and series is Contrast.NONE:
        raise InputError(
            "The scan may be contrast-enhanced: its header names a contrast agent, its description says none. "
            + _GIVE_PLAIN
        )
    decided = series if series is not Contrast.NOT_STATED else protocol
    if agent is Contrast.GIVEN or series is Contrast.GIVEN:
        raise InputError(f"The scan is contrast-enhanced. {_GIVE_PLAIN}")
    if Contrast.NONE in (series, agent):
        return []
    if decided is Contrast.GIVEN:
        raise InputError(f"The scan's protocol says that it is contrast-enhanced. {_GIVE_PLAIN}")
    if Contrast.UNCLEAR in (agent, decided) or (
        decided is Contrast.NOT_STATED and study in (Contrast.GIVEN, Contrast.UNCLEAR)
    ):
        return [
            "The headers leave open whether contrast medium was given. If it was, bright vessels may be taken "
            "for blood and the result is wrong."
        ]
    return []


def _agent(headers: Sequence[pydicom.Dataset]) -> Contrast:
    """What the contrast agent elements say: the name, or else the amount given, or else the route."""
    agents = _texts(headers, "ContrastBolusAgent")
    for header in headers:
        agents |= {words(item, "CodeMeaning") for item in values(header, "ContrastBolusAgentSequence")} - {""}
    named = {agent_contrast(text) for text in agents}
    if Contrast.GIVEN in named:
        return Contrast.GIVEN
    if Contrast.NONE in named:
        return Contrast.NONE
    if any((number_or_none(header, keyword) or 0) > 0 for header in headers for keyword in _AMOUNTS):
        return Contrast.GIVEN
    routes = {agent_contrast(text) for text in _texts(headers, "ContrastBolusRoute")}
    if Contrast.UNCLEAR in named or Contrast.GIVEN in routes:
        return Contrast.UNCLEAR
    return Contrast.NOT_STATED


def _said(texts: Iterable[str]) -> Contrast:
    """What several texts of one kind say, taken together."""
    said = {described_contrast(text) for text in texts}
    order = (Contrast.GIVEN, Contrast.UNCLEAR, Contrast.NONE)
    return next((what for what in order if what in said), Contrast.NOT_STATED)


def _texts(headers: Sequence[pydicom.Dataset], keyword: str) -> set[str]:
    return {text for header in headers if (text := words(header, keyword))}
