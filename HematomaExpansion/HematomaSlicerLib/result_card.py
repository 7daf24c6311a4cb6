"""The result in large type, for the panel: rich text, made from ``prediction.json`` alone."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

from HematomaExpansionLib import RESEARCH_USE
from HematomaExpansionLib.forecast.probability import models_disagree, models_used
from HematomaExpansionLib.markers.scores import bat_text, brain_text, present_markers

_UNITS = {"mm2": "mm²", "hu": "HU", "mm": "mm"}
_DECIDING = 2


@dataclass(frozen=True)
class MarkerRow:
    """A CT marker as the panel lists it: its name in the result, its title, whether it is present, and why.

    ``reason``: the measurements that decide; ``measured``: all of them.
    """

    name: str
    title: str
    present: bool
    reason: str
    measured: str


def card(result: dict[str, Any]) -> str:
    """The prediction as a user first sees it."""
    baseline, followup, growth = result["baseline"], result["followup"], result["growth"]
    notes = "".join(_small(text) for text in result["input"]["warnings"])
    if growth is None:
        return _large("No hematoma found") + _line("This does not rule out a bleed.") + notes
    low, high = followup["volume_ml_low"], followup["volume_ml_high"]
    interval = "" if low is None else f" <span style='font-size:13pt'>({low:.0f}–{high:.0f})</span>"
    expansion = "<b>Expansion: YES</b>" if growth["expansion"] else "<b>Expansion: no</b>"
    detectable = (
        "" if growth["detectable"] else _small("The growth is below what repeated measurement can tell apart.")
    )
    corrected = baseline.get("corrected_volume_ml")  # a scene saved by an earlier version has none
    return (
        _large(f"{baseline['volume_ml']:.1f} mL → {followup['volume_ml']:.1f} mL{interval}")
        + ("" if corrected is None else _small(f"Now {corrected:.1f} mL corrected for the segmenter's bias"))
        + _line(f"Growth {growth['absolute_ml']:+.1f} mL ({100 * growth['relative']:+.0f} %)")
        + _line(expansion)
        + _small(f"Definition: {growth['definition']}")
        + _probability(result)
        + _line(f"ABC/2 {baseline['abc2_ml']:.1f} mL → {followup['abc2_ml']:.1f} mL")
        + _small("ABC/2 is a bedside estimate to compare with: rely on the volumes above, which count voxels.")
        + detectable
        + _scope(result)
        + notes
    )


def _scope(result: dict[str, Any]) -> str:
    scope = result.get("scope")  # missing for a user's own mask and in an earlier version's scene
    return _small(f"Looked for: {scope['looked_for']}; not for {scope['not_looked_for']}.") if scope else ""


def _probability(result: dict[str, Any]) -> str:
    risk = result.get("risk")
    if not risk:
        return ""
    unsure = "The predicted growth and the probability, which two models tell, disagree: rely on neither alone."
    told = _line(f"Probability of expansion {100 * risk['probability']:.0f} %")
    return told + (_small(unsure) if models_disagree(result) else "")


def marker_rows(result: dict[str, Any] | None) -> list[MarkerRow]:
    """The CT markers of a result; none if there is no hematoma."""
    markers = (result or {}).get("markers") or {}
    rows = []
    for name, present in present_markers(markers).items():
        words = _words(markers[name]["evidence"])
        title = name.replace("_", " ").capitalize()
        rows.append(MarkerRow(name, title, present, ", ".join(words[:_DECIDING]), ", ".join(words)))
    return rows


def scores_text(result: dict[str, Any] | None) -> str:
    """The scores of a result, one per line; empty if there are none."""
    scores = (result or {}).get("scores") or {}
    lines = []
    if scores.get("bat"):
        lines.append(f"BAT score {bat_text(scores['bat'])}")
    if scores.get("brain"):  # only if everything it needs is known
        lines.append(f"BRAIN score {brain_text(scores['brain'])}")
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
    return "".join(_line(line) for line in lines) + notes


def _large(text: str) -> str:
    return f"<p style='font-size:19pt; margin:2px 0'><b>{text}</b></p>"


def _line(text: str) -> str:
    return f"<p style='font-size:11pt; margin:2px 0'>{text}</p>"


def _small(text: str) -> str:
    return f"<p style='font-size:9pt; margin:2px 0'>{escape(text)}</p>"
