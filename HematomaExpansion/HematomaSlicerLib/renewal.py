"""The forecast of a prediction made anew when more is known of the patient: from its result alone, at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from HematomaExpansionLib.errors import ModelPackageError
from HematomaExpansionLib.forecast.facts import Facts
from HematomaExpansionLib.forecast.forecast import ForecastModel, notes_on, renewed
from HematomaExpansionLib.markers.scores import ClinicalData, found_in_ventricles, overrule, scores_of
from HematomaExpansionLib.models.package import ModelPackage, find_package

_AROUND = ("whether", "definition")
_STAYS = "The forecast does not count the latest changes: "


def told_in(result: Mapping[str, Any]) -> dict[str, Any]:
    """What the user told beside the scan: ``onset_hours``, the fields of ``ClinicalData``, and ``whether`` and
    ``definition`` (see ``Circumstances``); the last two only if the result has a forecast.
    """
    told = result["input"]
    clinical = ClinicalData(**(told.get("clinical") or {}))
    around = (result.get("forecast") or {}).get("circumstances", {})
    return {
        "onset_hours": told.get("onset_hours"),
        **asdict(clinical),
        **{name: around[name] for name in _AROUND if name in around},
    }


def retold(result: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The result when some of ``told_in`` is known to be otherwise: scores and forecast follow."""
    told = {**told_in(result), **changes}
    around = {name: told.pop(name) for name in _AROUND if name in told}
    hours = told.pop("onset_hours")
    clinical = ClinicalData(**told)
    changed = {**result, "input": {**result["input"], "onset_hours": hours, "clinical": asdict(clinical)}}
    if result.get("markers"):
        known = clinical.with_found(found_in_ventricles(result))
        changed["scores"] = scores_of(result["markers"], hours, result["baseline"]["volume_ml"], known)
    return _with_forecast(result, changed, around)


def overruled(result: Mapping[str, Any], name: str, present: bool) -> dict[str, Any]:
    """The result when a reader has decided on a CT marker: scores and forecast follow."""
    return _with_forecast(result, overrule(result, name, present))


def forecast_by(result: Mapping[str, Any], package: ModelPackage) -> dict[str, Any]:
    """The result with the forecast of another package.

    Raises:
        ModelPackageError: the package is damaged.
    """
    if not result.get("forecast"):
        return dict(result)
    models = {**result["models"], "forecast": package.identity}
    return _anew({**result, "models": models}, ForecastModel.of(package), _other_notes(result))


def _with_forecast(
    before: Mapping[str, Any], changed: dict[str, Any], around: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The changed result with its forecast made anew; where that is impossible, it stays and a note says so."""
    forecast, notes = changed.get("forecast"), _other_notes(before)
    if not forecast:
        return changed
    circumstances = {**forecast["circumstances"], **(around or {})}
    to_renew = {**changed, "forecast": {**forecast, "circumstances": circumstances}}
    try:
        return _anew(to_renew, ForecastModel.of(_package_of(changed)), notes)
    except (ModelPackageError, ImportError):  # the latter where nothing has been installed yet
        name = changed["models"]["forecast"]["name"]
        stays = f"{_STAYS}the model {name!r} that made it is not on this machine in the same version."
        return _noting(changed, [*notes, *_notes_of_forecast(before), stays])


def _anew(result: dict[str, Any], model: ForecastModel, notes: Sequence[str]) -> dict[str, Any]:
    anew = renewed(result, model)
    return _noting(anew, [*notes, *_notes_of_forecast(anew)])


def _notes_of_forecast(result: Mapping[str, Any]) -> Sequence[str]:
    return notes_on(Facts.of_result(result), result["forecast"]["circumstances"]["whether"])


def _other_notes(result: Mapping[str, Any]) -> list[str]:
    """The notes of a result that do not depend on its forecast."""
    of_forecast = _notes_of_forecast(result) if result.get("forecast") else ()
    notes = result["input"]["warnings"]
    return [note for note in notes if note not in of_forecast and not note.startswith(_STAYS)]


def _noting(result: Mapping[str, Any], notes: Sequence[str]) -> dict[str, Any]:
    return {**result, "input": {**result["input"], "warnings": list(notes)}}


def _package_of(result: Mapping[str, Any]) -> ModelPackage:
    """The package that made the forecast of a result.

    Raises:
        ModelPackageError: it is not on this machine, or there is another one by its name.
    """
    identity = result["models"]["forecast"]
    package = find_package(identity["name"], "forecast")
    if package.sha256 != identity["sha256"]:
        raise ModelPackageError(f"The model {identity['name']!r} is another version.")
    return package
