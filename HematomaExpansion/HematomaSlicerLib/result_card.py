"""The result in large type, for the panel: rich text, made from ``prediction.json`` alone."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

from HematomaExpansionLib import RESEARCH_USE
from HematomaExpansionLib.anatomy.kinds import LOOKS
from HematomaExpansionLib.forecast.evidence import steps_text
from HematomaExpansionLib.forecast.forecast import milliliters
from HematomaExpansionLib.forecast.probability import models_used
from HematomaExpansionLib.markers.scores import bat_text, brain_text, is_unsure, present_markers, ventricles_of
from HematomaExpansionLib.output.findings import (
    findings,
    first_line,
    is_doubtful,
    likely_text,
    new_blood_text,
    scope_text,
)

_UNITS = {"mm2": "mm²", "hu": "HU", "mm": "mm"}
_DECIDING = 2
_SAME_ML = 0.5
"""The outline's volume and the forecast's may differ by less, because voxels are whole."""


@dataclass(frozen=True)
class MarkerRow:
    """A CT marker as the panel lists it: its name in the result, its title, whether it is present, and why.

    ``unsure``: whether it is nearly as likely absent as present, and no reader has decided. ``reason``: the
    measurements that decide; ``measured``: all of them.
    """

    name: str
    title: str
    present: bool
    unsure: bool
    reason: str
    measured: str


def card(result: dict[str, Any]) -> str:
    """The prediction as a user first sees it."""
    notes = "".join(_small(text) for text in result["input"]["warnings"])
    if result["growth"] is None:
        likely = f"{likely_text(result)}. " if likely_text(result) else ""
        reason = likely if is_doubtful(result) else f"{likely}This does not rule out a bleed."
        return _large(first_line(result)) + _line(reason) + _findings(result) + notes
    told = _forecast(result) if result.get("forecast") else _earlier_forecast(result)
    return told + _volumes(result) + _findings(result) + _scope(result) + notes


def _forecast(result: dict[str, Any]) -> str:
    """Whether, how much, and why."""
    forecast, growth = result["forecast"], result["growth"]
    low, middle, high = (milliliters(forecast["volume_ml"][share]) for share in ("10", "50", "90"))
    detectable = "" if growth["detectable"] else ", less than repeated measurement can tell apart"
    drawn_ml, told_ml = result["followup"]["volume_ml"], forecast["if_expands"]["volume_ml"]
    outline = f"The red outline still has {milliliters(drawn_ml)} mL: to draw the newer volume, predict again."
    return (
        _large(_unbroken(forecast["text"]))
        + _line(escape(steps_text(forecast["evidence"])))
        + _small(f"Probability from {forecast['source']}")
        + _line(f"All outcomes {middle} mL ({low}–{high}): 8 in 10 patients like this one")
        + _line(f"If it expands {growth['absolute_ml']:+.1f} mL ({100 * growth['relative']:+.0f} %){detectable}")
        + ("" if abs(drawn_ml - told_ml) < _SAME_ML else _small(outline))
        + _small(f"Expansion means {forecast['definition']}")
    )


def _earlier_forecast(result: dict[str, Any]) -> str:
    """What an earlier version told: a predicted volume, and a probability beside it."""
    baseline, followup, growth = result["baseline"], result["followup"], result["growth"]
    risk = result.get("risk")
    low, high = followup.get("volume_ml_low"), followup.get("volume_ml_high")
    interval = "" if low is None else f" ({low:.0f}–{high:.0f})"
    detectable = "" if growth["detectable"] else ", less than repeated measurement can tell apart"
    return (
        _large(_unbroken(f"{baseline['volume_ml']:.1f} mL → {followup['volume_ml']:.1f} mL{interval}"))
        + _line("Predicted by an earlier version")
        + _line(f"Growth {growth['absolute_ml']:+.1f} mL ({100 * growth['relative']:+.0f} %){detectable}")
        + _line(f"Expansion: {'yes' if growth['expansion'] else 'no'}")
        + _small(f"Expansion means {growth['definition']}")
        + (_line(f"Probability of expansion {100 * risk['probability']:.0f} %") if risk else "")
    )


def _volumes(result: dict[str, Any]) -> str:
    baseline, followup = result["baseline"], result["followup"]
    corrected = baseline.get("corrected_volume_ml")  # a scene saved by an earlier version has none
    likely = likely_text(result)
    return (
        (_line(f"Hematoma {baseline['volume_ml']:.1f} mL, {likely}") if likely else "")
        + ("" if corrected is None else _small(f"Now {corrected:.1f} mL corrected for the segmenter's bias"))
        + _line(f"ABC/2 {baseline['abc2_ml']:.1f} mL, if it expands {followup['abc2_ml']:.1f} mL")
        + _small("ABC/2 is a bedside estimate to compare with: rely on the volumes above, which count voxels.")
    )


def _findings(result: dict[str, Any]) -> str:
    """What was found beside the hematoma, each kind with its color."""
    lines = []
    for finding in findings(result):
        color = "" if finding.kind is None else f"<span style='color:{LOOKS[finding.kind].color}'>■</span> "
        lines.append(_line(f"{color}{escape(finding.title)}: {escape(finding.value)}"))
    return "".join(lines)


def _scope(result: dict[str, Any]) -> str:
    scope = scope_text(result)
    return _small(f"Looked for: {scope}.") if scope else ""


def marker_rows(result: dict[str, Any] | None) -> list[MarkerRow]:
    """The CT markers of a result; none if there is no hematoma."""
    markers = (result or {}).get("markers") or {}
    rows = []
    for name, present in present_markers(markers).items():
        words = _words(markers[name]["evidence"])
        title, unsure = name.replace("_", " ").capitalize(), is_unsure(markers[name])
        if unsure:
            title += f" ({100 * markers[name]['probability']:.0f} % likely)"
        rows.append(MarkerRow(name, title, present, unsure, ", ".join(words[:_DECIDING]), ", ".join(words)))
    return rows


def scores_text(result: dict[str, Any] | None) -> str:
    """The scores of a result, one per line; empty if there are none."""
    scores = (result or {}).get("scores") or {}
    lines = []
    if scores.get("bat"):
        lines.append(f"BAT score {bat_text(scores['bat'])}")
    if result and scores.get("brain"):  # only if everything it needs is known
        lines.append(f"BRAIN score {brain_text(scores['brain'], ventricles_of(result))}")
    return "\n".join(lines)


def _words(evidence: dict[str, float]) -> list[str]:
    """Measured values in words, such as "area 40 mm²" and "lowest 38 HU"."""
    words = []
    for name, value in evidence.items():
        what, _, unit = name.rpartition("_")
        if unit == "share":
            words.append(f"{what} {100 * value:.0f} %".replace("_", " "))
        elif unit in _UNITS:
            words.append(f"{what} {value:.0f} {_UNITS[unit]}".replace("_", " "))
        else:
            words.append(f"{name} {value:.2g}".replace("_", " "))
    return words


def notice(result: dict[str, Any] | None) -> str:
    """The text always in view: research use only, and briefly what the models were trained on."""
    lines = []
    for task, model in _trained_models(result).items():
        first, *more = model["trained_on"].split(";")
        lines.append(f"{task.capitalize()} trained on {first}{' …' if more else ''}")
    return "<br>".join([escape(RESEARCH_USE), *(f"<small>{escape(line)}</small>" for line in lines)])


def training_text(result: dict[str, Any] | None) -> str:
    """Everything that a result's models were trained on, one paragraph per model."""
    return "\n\n".join(f"{model['name']}: {model['trained_on']}." for model in _trained_models(result).values())


def _trained_models(result: dict[str, Any] | None) -> dict[str, Any]:
    """The models of a result by task; a hand-drawn mask has none."""
    models = models_used(result) if result else {}
    return {task: model for task, model in models.items() if model["trained_on"] is not None}


def comparison_text(comparison: dict[str, Any]) -> str:
    """The measures of a prediction against the real follow-up."""
    true, prediction = comparison["followup"]["volume_ml"], comparison["prediction"]
    lines = [f"True follow-up <b>{'none found' if true is None else f'{true:.1f} mL'}</b>"]
    notes = "".join(_small(text) for text in comparison.get("warnings", []))  # an earlier version's has none
    if comparison.get("growth", {}) is None:
        lines.append("Growth <b>not known</b>")
    elif prediction is not None:
        overlap = prediction["growth_dice"]
        lines += [
            f"Predicted {prediction['volume_ml']:.1f} mL (error {prediction['error_ml']:+.1f} mL)",
            "Nothing grew" if overlap is None else f"Growth Dice {overlap:.2f}",
            f"Lesion Dice {prediction['lesion_dice']:.2f} "
            f"({prediction['lesion_dice_without_growth']:.2f} by a copy of the baseline)",
        ]
    if new := new_blood_text(comparison):
        lines.append(f"New blood in the ventricles: {new}")
    return "".join(_line(line) for line in lines) + notes


def _unbroken(text: str) -> str:
    """A sentence that is broken only after its dots, whatever the width of the panel."""
    space = "\N{NO-BREAK SPACE}"
    return text.replace(" ", space).replace(f"{space}·{space}", f"{space}· ")


def _large(text: str) -> str:
    return f"<p style='font-size:13pt; margin:2px 0'><b>{escape(text)}</b></p>"


def _line(text: str) -> str:
    return f"<p style='font-size:11pt; margin:2px 0'>{text}</p>"


def _small(text: str) -> str:
    return f"<p style='font-size:9pt; margin:2px 0'>{escape(text)}</p>"
