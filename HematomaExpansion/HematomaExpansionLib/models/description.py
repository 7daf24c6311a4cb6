"""Reads the description of a model package, ``model.json``, and rejects one that cannot be used as it is.

Its faults would otherwise surface only after a computation, or never. This needs no third-party library: packages
are listed before any library is installed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from ..errors import InputError, ModelPackageError
from .measurement_names import MEASUREMENTS

INTEGRATION_STEPS = "integration_steps"
"""Setting of a growth package: number of squarings that integrate a velocity field; 0, the default, uses the field
as it is.
"""

SPREAD = "spread"
"""Setting of a forecast package: how follow-up volumes spread, by kind of mask
(``forecast.distribution.Spread``)."""

SPREAD_NUMBERS = ("middle", "deviation", "excess", "by_volume", "by_network", "shape", "network_growth")
"""What that setting holds for each kind of mask."""

EVIDENCE_SOURCE = "evidence_source"
"""Setting of a forecast package: whose patients tell whether a hematoma expands, in words for the user."""

VOLUME_CORRECTION = "volume_correction"
"""Setting of a segmentation package: coefficients for ``measures.volumes.corrected_volume``, the mean absolute
error in mL before and after correction on patients left out of the fit, and the number of patients.
"""

PRESENCE = "presence"
"""Setting of a segmentation package: coefficients of the probability that there is a hematoma
(``anatomy.presence``)."""

PRESENCE_NUMBERS = ("constant", "volume", "peak")
"""What that setting holds."""

MEAN_GROWTH = "training_mean_relative_growth"
"""Result of a growth package: mean growth of its training patients, relative to their baseline."""

SHARE_EXPANDED = "training_share_expanded"
"""Result of a risk package: share of its training patients whose hematoma expanded."""

MARKER_LOGISTIC = "marker-logistic"
"""The only architecture that looks at measurements, not voxels."""

EVIDENCE_LOGISTIC = "evidence-logistic"
"""The architecture of forecasts, which look at facts about a patient (``forecast_numbers``)."""

ENSEMBLE = "ensemble"
"""The only architecture that holds several networks of another."""

CLASSES = 6
"""What a segmentation network that tells the kinds of bleeds apart distinguishes: background, the four kinds
(``anatomy.bleeds.Kind``), and CSF in the lateral ventricles, which shows where the midline runs."""

CLASS_NAMES = {
    "background": 0,
    "intraparenchymal": 1,
    "hemorrhage": 1,
    "intraventricular": 2,
    "extraaxial": 3,
    "edema": 4,
    "ventricles": 5,
}
"""What a network made elsewhere may call its outputs, and the class that each is. What is only known to be blood
counts as hematoma, and the result says so."""

LABELS = "labels"
"""Argument of a network made elsewhere: the name of each of its outputs, in order."""

BLAST_CT, NNUNET, MONAI, MEDSAM = "blast-ct", "nnunet", "monai", "medsam"
"""The architectures of BLAST-CT, of what nnU-Net trained, of bundles of MONAI, and of MedSAM."""

ELSEWHERE = (BLAST_CT, NNUNET, MONAI, MEDSAM)
"""The architectures of segmentation networks made elsewhere, which have ``LABELS``."""

LEARNED_ELSEWHERE = "learned elsewhere from"
"""How the training step of an imported network begins."""

Task = Literal["segmentation", "growth", "risk", "forecast"]

ARCHITECTURES_OF: dict[Task, tuple[str, ...]] = {
    "segmentation": ("segmentation-unet", "slice-segmentation", *ELSEWHERE),
    "growth": ("displacement-unet", "affine-regressor"),
    "risk": (MARKER_LOGISTIC, "two-output-unet", "slice-classifier"),
    "forecast": (EVIDENCE_LOGISTIC,),
}
"""The architectures for each task (see ``models.networks``)."""

_OF_SLICES = {"slice-segmentation", "slice-classifier", MEDSAM}
_WITHOUT_VOXELS = {("risk", MARKER_LOGISTIC), ("forecast", EVIDENCE_LOGISTIC)}

_MAX_BYTES = 1 << 16
_MAX_INTEGRATION_STEPS = 12
_MAX_LETTERS_OF_VERSION = 40
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_SHORT = 120


@dataclass(frozen=True)
class ModelGrid:
    """The grid and intensity window in which a network sees a scan.

    ``spacing_mm`` and ``patch_size`` are in the order (x, y, z); ``window_hu`` holds the HU that are scaled to 0
    and 1. A patch one voxel high belongs to a network that works on slices.
    """

    spacing_mm: tuple[float, float, float]
    patch_size: tuple[int, int, int]
    window_hu: tuple[float, float]


NO_GRID = ModelGrid((0.0, 0.0, 0.0), (0, 0, 0), (0.0, 0.0))
"""The grid of a model that looks at measurements, not voxels."""

INTENDED_USE: dict[Task, str] = {
    "segmentation": "Research on segmentation of intracerebral hematoma. Not for diagnosis or treatment.",
    "growth": "Research on prediction of hematoma expansion. Not for diagnosis or treatment.",
    "risk": "Research on prediction of hematoma expansion. Not for diagnosis or treatment.",
    "forecast": "Research on prediction of hematoma expansion. Not for diagnosis or treatment.",
}


@dataclass(frozen=True)
class TrainingStep:
    """One step in the training of a model, such as "learned from 240 simulated patients, no real ones".

    ``source``: whose cases they were; ``details``: anything else worth knowing. Older packages, written without
    steps, have only ``what``.
    """

    what: str
    cases: int | None = None
    source: str = ""
    details: str = ""

    @property
    def text(self) -> str:
        """The step in words."""
        cases = "" if self.cases is None else str(self.cases)
        words = " ".join(part for part in (self.what, cases, self.source) if part)
        return f"{words} ({self.details})" if self.details else words


@dataclass(frozen=True)
class ModelDescription:
    """The contents of ``model.json``.

    ``spacing_mm``, ``patch_size`` and ``window_hu`` are those of its ``grid``. ``trained_on``: its training steps
    in order. ``settings`` holds what a task needs beyond its network.
    """

    name: str
    version: str
    task: Task
    architecture: str
    arguments: dict[str, Any]
    spacing_mm: tuple[float, float, float]
    patch_size: tuple[int, int, int]
    window_hu: tuple[float, float]
    trained_on: tuple[TrainingStep, ...]
    results: dict[str, Any]
    license: str
    intended_use: str
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def grid(self) -> ModelGrid:
        """The grid and intensity window in which its network sees a scan."""
        return ModelGrid(self.spacing_mm, self.patch_size, self.window_hu)

    @property
    def training_sources(self) -> str:
        """Whose cases the model was trained on, in a few words, as written into every result."""
        # Older packages, written without steps, name the cases first, up to a semicolon.
        said = dict.fromkeys(step.source or step.what.partition(";")[0] for step in self.trained_on)
        text = ", then ".join(part for part in said if part)
        return text if len(text) <= _SHORT else text[: _SHORT - 2].rstrip() + " …"

    @property
    def member(self) -> str:
        """The architecture of its networks, whether it holds one or several."""
        return str(self.arguments["member"]) if self.architecture == ENSEMBLE else self.architecture

    @property
    def member_arguments(self) -> dict[str, Any]:
        """What each of its networks is built with."""
        return dict(self.arguments["arguments"]) if self.architecture == ENSEMBLE else self.arguments

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the outputs of a segmentation network made elsewhere; none for ours."""
        return tuple(self.member_arguments.get(LABELS, ()))

    @property
    def classes(self) -> int:
        """Number of outputs of a segmentation network; 1 for the hematoma alone."""
        return len(classes_of(self.labels)) if self.labels else int(self.member_arguments.get("classes", 1))

    @property
    def sees_whole_head(self) -> bool:
        """Whether a segmentation network sees what lies outside the skull too; ours do not."""
        return self.member in ELSEWHERE

    @property
    def is_promptable(self) -> bool:
        """Whether a segmentation network looks only in a box that it is given."""
        return self.member == MEDSAM

    @property
    def is_mixed(self) -> bool:
        """Whether a segmentation network knows only blood, of whatever kind."""
        return "hemorrhage" in self.labels

    def result(self, name: str) -> float:
        """A figure from the model's training.

        Raises:
            ModelPackageError: the package does not report it.
        """
        if name not in self.results:
            raise ModelPackageError(
                f"Model {self.name!r} does not report {name.replace('_', ' ')!r}, which an evaluation needs: "
                f"train it with `hematoma train {self.task}`, or choose another model."
            )
        return float(self.results[name])

    def to_json(self, sha256: str) -> dict[str, Any]:
        """The contents of ``model.json``, for weights with that checksum."""
        values = asdict(self)
        values["architecture"] = {"name": values.pop("architecture"), "arguments": values.pop("arguments")}
        values["trained_on"] = [
            {key: value for key, value in asdict(step).items() if value not in ("", None)}
            for step in self.trained_on
        ]
        return {**values, "research_use_only": True, "sha256": sha256}


def classes_of(labels: Sequence[str]) -> list[int]:
    """The classes that outputs of these names tell apart, each once, in ascending order."""
    return sorted({CLASS_NAMES[name] for name in labels})


def package_name(folder: Path) -> str:
    """The name of a model package written into that folder: the folder's own name.

    Raises:
        InputError: it is not a valid model name.
    """
    name = folder.resolve().name
    if not _NAME.fullmatch(name):
        raise InputError(
            f"A model is named after its folder, and cannot be called {name!r}: choose a folder whose name has at "
            "most 64 small letters, digits, dots, hyphens and underscores, and begins with a letter or digit."
        )
    return name


def is_package_name(text: str) -> bool:
    """Whether ``text`` is a valid model name."""
    return _NAME.fullmatch(text) is not None


def read_description(path: Path) -> tuple[ModelDescription, str]:
    """The description in a ``model.json``, and the checksum that it expects of the weights.

    Raises:
        ModelPackageError: it cannot be understood, or cannot be used as it is.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError("no description")
        values = json.loads(path.read_text(encoding="utf-8"))
        architecture = values["architecture"]
        description = ModelDescription(
            name=str(values["name"]),
            version=str(values["version"]),
            task=values["task"],
            architecture=str(architecture["name"]),
            arguments=dict(architecture["arguments"]),
            spacing_mm=_triple(values["spacing_mm"], float),
            patch_size=_triple(values["patch_size"], int),
            window_hu=(float(values["window_hu"][0]), float(values["window_hu"][1])),
            trained_on=_steps(values["trained_on"]),
            results=dict(values["results"]),
            license=str(values["license"]),
            intended_use=str(values["intended_use"]),
            settings=dict(values.get("settings", {})),
        )
        sha256 = str(values["sha256"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ModelPackageError(
            f"The description of model {path.parent.name!r} cannot be understood: install the package again."
        ) from error
    plausible = (
        is_package_name(description.name)
        and len(description.version) <= _MAX_LETTERS_OF_VERSION
        and description.task in get_args(Task)
        and (_looks_at_voxels(description) or _looks_at_measurements(description))
        and _are_settings(description.settings)
        and all(_is_number(description.results.get(name, 0.0), 1e6) for name in (MEAN_GROWTH, SHARE_EXPANDED))
    )
    if not plausible:
        raise ModelPackageError(
            f"The description of model {path.parent.name!r} holds values out of range: install the package again."
        )
    _check_network(description)
    return description, sha256


def _steps(values: Any) -> tuple[TrainingStep, ...]:
    """The steps as ``to_json`` writes them, or the one sentence of earlier packages."""
    if isinstance(values, str):
        return (TrainingStep(values),)
    if not isinstance(values, list):
        raise TypeError("no steps")
    return tuple(_step(value) for value in values)


def _step(value: Any) -> TrainingStep:
    if isinstance(value, str):
        return TrainingStep(value)
    step = TrainingStep(**value)
    if not all(isinstance(text, str) for text in (step.what, step.source, step.details)) or not (
        step.cases is None or isinstance(step.cases, int)
    ):
        raise TypeError("no step")
    return step


def _check_network(description: ModelDescription) -> None:
    """Raise ``ModelPackageError`` unless this version knows the network and it fits the package's task."""
    name, architecture = description.name, description.architecture
    if architecture == ENSEMBLE:
        architecture = str(description.arguments.get("member"))
    if not any(architecture in known for known in ARCHITECTURES_OF.values()):
        raise ModelPackageError(
            f"Model {name!r} asks for a network that this version does not know ({architecture}): update "
            "HematomaExpansion, or choose another model."
        )
    of_slices = description.patch_size[2] == 1
    if architecture not in ARCHITECTURES_OF[description.task] or (architecture in _OF_SLICES) != of_slices:
        raise ModelPackageError(
            f"The network that model {name!r} describes, its task and its patches do not fit together: install "
            "the package again, or choose another model."
        )
    if architecture == MEDSAM and description.architecture == ENSEMBLE:
        raise ModelPackageError(
            f"Model {name!r} holds several networks that each look in a box, which this version does not run: "
            "choose another model."
        )
    if architecture == MARKER_LOGISTIC:
        _check_features(name, description.arguments.get("features"))
    if architecture in ELSEWHERE and not _are_labels(description.member_arguments.get(LABELS)):
        raise ModelPackageError(
            f"Model {name!r} does not say which of its outputs is which kind of blood: import it again."
        )


def _are_labels(labels: Any) -> bool:
    """Whether these are names of outputs, background first, with at least one kind of blood in the brain."""
    return (
        isinstance(labels, list)
        and len(labels) > 1
        and all(isinstance(name, str) and name in CLASS_NAMES for name in labels)
        and labels[0] == "background"
        and 1 in classes_of(labels)
    )


def _check_features(name: str, features: Any) -> None:
    """Raise ``ModelPackageError`` if a risk model uses what cannot be measured: it would silently count as the
    mean.
    """
    if not isinstance(features, list) or not features or not all(isinstance(each, str) for each in features):
        raise ModelPackageError(
            f"Model {name!r} does not say which measurements it looks at: install the package again."
        )
    unknown = [each for each in features if each not in MEASUREMENTS]
    if unknown or len(set(features)) < len(features):
        wrong = f"that this version does not make ({_listed(unknown)})" if unknown else "of which one comes twice"
        raise ModelPackageError(
            f"Model {name!r} looks at measurements {wrong}: update HematomaExpansion, or choose another model."
        )


def _listed(names: Sequence[str]) -> str:
    """The first few names, cut to a readable length."""
    shown = ", ".join(name[:40] for name in names[:3])
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def _looks_at_voxels(description: ModelDescription) -> bool:
    return (
        all(0.1 <= spacing <= 20 for spacing in description.spacing_mm)
        and all(8 <= size <= 1024 for size in description.patch_size[:2])
        and (description.patch_size[2] == 1 or 8 <= description.patch_size[2] <= 512)
        and description.window_hu[0] < description.window_hu[1]
    )


def _looks_at_measurements(description: ModelDescription) -> bool:
    return (description.task, description.architecture) in _WITHOUT_VOXELS


def _are_settings(settings: dict[str, Any]) -> bool:
    steps = settings.get(INTEGRATION_STEPS, 0)
    return (
        type(steps) is int
        and 0 <= steps <= _MAX_INTEGRATION_STEPS
        and _are_spreads(settings.get(SPREAD))
        and _is_correction(settings.get(VOLUME_CORRECTION))
        and _is_presence(settings.get(PRESENCE))
    )


def _is_number(value: Any, limit: float) -> bool:
    return isinstance(value, (int, float)) and abs(value) <= limit


def _are_spreads(by_masks: Any) -> bool:
    """Whether this is what ``forecast.distribution.Spread`` takes, by kind of mask, or None."""
    if by_masks is None:
        return True
    if not isinstance(by_masks, dict) or not by_masks or not set(by_masks) <= {"true", "automatic"}:
        return False
    return all(
        isinstance(spread, dict)
        and set(spread) == set(SPREAD_NUMBERS)
        and all(_is_number(value, 10) for value in spread.values())
        and all(spread[name] > 0 for name in ("deviation", "excess", "shape", "network_growth"))
        for spread in by_masks.values()
    )


def _is_presence(values: Any) -> bool:
    """Whether this is what ``anatomy.presence.presence_of`` takes, or None."""
    return values is None or (
        isinstance(values, dict)
        and set(values) >= set(PRESENCE_NUMBERS)
        and all(_is_number(value, 1e3) for value in values.values())
    )


def _is_correction(values: Any) -> bool:
    """Whether this is what ``measures.volumes.corrected_volume`` takes, or None."""
    if values is None:
        return True
    if not isinstance(values, dict) or not set(values) >= {"constant_ml", "slope", "smallest_ml", "largest_ml"}:
        return False
    numbers = all(_is_number(value, 1e6) for value in values.values())
    return numbers and values["slope"] > 0 and 0 < values["smallest_ml"] <= values["largest_ml"]


def _triple(values: Any, kind: type) -> tuple[Any, Any, Any]:
    x, y, z = (kind(value) for value in values)
    return x, y, z
