"""Imports a bundle of MONAI with a SegResNet or DynUNet: its configuration says how the network sees a scan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import ModelPackageError
from ...files.provenance import content_sha256
from ..description import LABELS, LEARNED_ELSEWHERE, MONAI, ModelGrid, TrainingStep, package_name
from ..networks.described import DescribedNetwork
from ..networks.elsewhere import MonaiNetwork
from ..package import ModelPackage, write_package
from .checkpoints import fill, json_in, read_checkpoint
from .labels import names_of_outputs

_REMEDY = "name the folder of a bundle, with configs/inference.json, configs/metadata.json and models/model.pt"
_INSIDE = ("model", "state_dict")


def import_bundle(
    folder: Path, output: Path, kinds: Mapping[str, str], trained_on: str | None = None
) -> ModelPackage:
    """A package of a bundle's network.

    Args:
        folder: the bundle, with ``configs/inference.json``, ``configs/metadata.json`` and ``models/model.pt``.
        output: folder of the package, which gives its name.
        kinds: which of the bundle's channels is which kind of blood (``description.CLASS_NAMES``).
        trained_on: what it was trained on, in a few words.

    Raises:
        ModelPackageError: a file is missing, refused or damaged, or the network is none that works here.
        InputError: a channel does not exist, or the folder holds something else, or cannot be written.
    """
    name = package_name(output)
    configuration = json_in(folder / "configs" / "inference.json", _REMEDY)
    metadata = json_in(folder / "configs" / "metadata.json", _REMEDY)
    file = folder / "models" / "model.pt"
    if not file.is_file():
        raise ModelPackageError(f"The folder has no models/model.pt: {_REMEDY}.")
    settings = [_plain(part, configuration) for part in _parts(configuration)]
    network, network_arguments = _network(settings)
    grid, scaled = _grid(settings)
    axes = next((part["axcodes"] for part in settings if _target(part).startswith("Orientation")), "RAS")
    labels = names_of_outputs(_channels(metadata), kinds)
    arguments: dict[str, Any] = {
        "network": network, "network_arguments": network_arguments, LABELS: labels, "scaled": scaled, "axes": axes,
    }  # fmt: skip
    try:
        made = MonaiNetwork(**arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelPackageError(f"MONAI cannot build the {network} of this bundle: {_REMEDY}.") from error
    weights = read_checkpoint(file)
    inside = [key for key in _INSIDE if isinstance(weights, dict) and isinstance(weights.get(key), dict)]
    fill(made.network, weights[inside[0]] if inside else weights, f"the bundle's {network}")
    source = trained_on or str(metadata.get("data_source") or "cases unknown here (bundle of MONAI)")
    steps = (TrainingStep(LEARNED_ELSEWHERE, None, source),)
    description = DescribedNetwork(made, MONAI, arguments).described(name, "segmentation", grid, steps, {})
    license_file = folder / "LICENSE"
    license_text = license_file.read_text(encoding="utf-8", errors="replace") if license_file.is_file() else ""
    made_from = {"imported": MONAI, "files": [content_sha256(file)], "labels": dict(kinds)}
    return write_package(output, description, made, made_from, exact=True, license_text=license_text)


def _parts(value: Any) -> Iterator[dict[str, Any]]:
    """Every component in a configuration (what has a ``_target_``), however deep."""
    if isinstance(value, dict):
        if "_target_" in value:
            yield value
        for inner in value.values():
            yield from _parts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _parts(inner)


def _plain(part: Mapping[str, Any], configuration: Mapping[str, Any]) -> dict[str, Any]:
    """A component with its references to plain values of the configuration filled in. Expressions stay texts: a
    bundle's configuration may hold programs, and none is run.
    """
    return {
        key: configuration.get(value[1:], value) if isinstance(value, str) and value.startswith("@") else value
        for key, value in part.items()
    }


def _target(part: Mapping[str, Any]) -> str:
    return str(part["_target_"]).rpartition(".")[2]


def _network(settings: list[dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    from ..networks.elsewhere import MONAI_NETWORKS

    for part in settings:
        if _target(part) in MONAI_NETWORKS:
            given = {key: value for key, value in part.items() if not key.startswith("_")}
            if any(isinstance(value, str) and value.startswith(("$", "@")) for value in given.values()):
                break
            return _target(part), given
    raise ModelPackageError(
        f"The bundle names no {' or '.join(MONAI_NETWORKS)} whose parameters are plain numbers: other networks, "
        "and parameters that a program computes, are not run."
    )


def _grid(settings: list[dict[str, Any]]) -> tuple[ModelGrid, list[float]]:
    """The grid and window, and the values to which the ends of the window are scaled."""
    by_target = {_target(part).removesuffix("d").removesuffix("D"): part for part in settings}
    try:
        spacing = [float(value) for value in by_target["Spacing"]["pixdim"]]
        window = by_target["ScaleIntensityRange"]
        size = [int(value) for value in by_target["SlidingWindowInferer"]["roi_size"]]
        (x, y, z), (across, along, up) = spacing, size
        grid = ModelGrid((x, y, z), (across, along, up), (float(window["a_min"]), float(window["a_max"])))
        return grid, [float(window["b_min"]), float(window["b_max"])]
    except (LookupError, TypeError, ValueError) as error:
        raise ModelPackageError(
            "The bundle does not say in plain numbers at which spacing (Spacingd), in which window "
            "(ScaleIntensityRanged) and in which patches (SlidingWindowInferer) its network sees a scan."
        ) from error


def _channels(metadata: Mapping[str, Any]) -> list[str]:
    """The names of the outputs, in order."""
    try:
        named = metadata["network_data_format"]["outputs"]["pred"]["channel_def"]
        return [str(named[key]) for key in sorted(named, key=int)]
    except (LookupError, TypeError, ValueError) as error:
        raise ModelPackageError("The bundle's metadata.json does not name the outputs of its network.") from error
