"""Model packages: a folder with ``model.json`` (what the model is) and ``weights.safetensors``.

Weights are safetensors only; no pickle is ever loaded, and weights with a different checksum are rejected.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelPackageError
from ..files.folders import make_folder, whole_or_nothing, writing_fault
from ..files.provenance import Provenance, read_provenance
from .description import (
    EVIDENCE_LOGISTIC,
    MARKER_LOGISTIC,
    ModelDescription,
    Task,
    is_package_name,
    read_description,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

    Array = NDArray[Any]


DESCRIPTION_FILE = "model.json"
WEIGHTS_FILE = "weights.safetensors"
LICENSE_FILE = "LICENSE.txt"
"""The text of the license of a network made elsewhere."""

PACKAGE = "package"
"""The kind of folder, as recorded in its provenance."""

TRAINING_FOLDER = "training"
"""Subfolder with the checkpoints and log of the training; writing a new package keeps it."""

_SHIPPED: dict[Task, str] = {"forecast": "forecast-evidence", "segmentation": "segmentation-kinds"}
"""Shipped defaults that are not named after their task and 'compact'."""

# Far above any network here; a larger file is not one of our packages.
_MAX_WEIGHTS_BYTES = 1 << 30


@dataclass(frozen=True)
class ModelPackage:
    """A verified package on disk."""

    folder: Path
    description: ModelDescription
    sha256: str

    @property
    def identity(self) -> dict[str, str]:
        """Name, version, checksum and whose cases it was trained on, as written into every result."""
        return {
            "name": self.description.name,
            "version": self.description.version,
            "sha256": self.sha256,
            "trained_on": self.description.training_sources,
        }

    def check(self) -> None:
        """Load it once.

        Raises:
            ModelPackageError: its weights do not fit its description.
        """
        if self.description.architecture == EVIDENCE_LOGISTIC:
            from .forecast_numbers import read_numbers

            read_numbers(self)
        else:
            self.load()

    def load(self) -> nn.Module:
        """The network with its weights, in evaluation mode, on the CPU, in single precision.

        Raises:
            ModelPackageError: the weights do not fit the network that the package describes, or that network does
                not fit the package's patches or task.
        """
        import safetensors
        import torch
        from safetensors.torch import load_file

        from .networks.build import build_network, own_weights

        description = self.description
        try:
            weights = load_file(self.folder / WEIGHTS_FILE)
            with torch.device("meta"):  # takes no memory, however large a network an untrusted package describes
                described = build_network(description.architecture, description.arguments).eval()
            if {name: tensor.shape for name, tensor in weights.items()} != {
                name: tensor.shape for name, tensor in own_weights(described).items()
            }:
                raise ValueError("other shapes")
            if self.folder.parent != shipped_models_folder():  # takes a second; shipped models are known to run
                _run_once(described, description)
            if not all(bool(tensor.isfinite().all()) for tensor in weights.values()):
                raise ValueError("not numbers")
            network = build_network(description.architecture, description.arguments)
            exact = {name: tensor.float() for name, tensor in weights.items()}
            network.load_state_dict(exact, strict=False)  # further names hold the same
        except (RuntimeError, ValueError, safetensors.SafetensorError) as error:
            raise ModelPackageError(
                f"The weights of model {description.name!r}, the network it describes and its task do not fit "
                "together: install the package again, or choose another model."
            ) from error
        return network.eval()


def _run_once(network: nn.Module, description: ModelDescription) -> None:
    """Run one empty patch through a network on torch's meta device, which needs no memory.

    Raises:
        RuntimeError, ValueError: the network does not take such patches, or does not return what its task needs.
    """
    import torch

    if description.architecture == MARKER_LOGISTIC:
        return
    x, y, z = description.patch_size
    channels = {"growth": 2}.get(description.task, 1)
    shape = (1, channels, z, y, x) if description.task != "risk" or z > 1 else (1, channels, y, x)
    output = network(torch.empty(shape, device="meta"))
    expected = {"segmentation": (1, description.classes, z, y, x), "growth": (1, 3, z, y, x)}
    if description.task in expected and getattr(output, "shape", None) != expected[description.task]:
        raise ValueError("other output")


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def open_package(folder: Path) -> ModelPackage:
    """Read and verify the package in ``folder``.

    Raises:
        ModelPackageError: a file is missing or not a regular file, the description is invalid, or the checksum of
            the weights differs.
    """
    description_file, weights = folder / DESCRIPTION_FILE, folder / WEIGHTS_FILE
    for path in (description_file, weights):
        if path.is_symlink() or not path.is_file():
            raise ModelPackageError(
                f"The model {folder.name!r} has no {path.name}: a model package is a folder with "
                f"{DESCRIPTION_FILE} and {WEIGHTS_FILE}."
            )
    if weights.stat().st_size > _MAX_WEIGHTS_BYTES:
        raise ModelPackageError(f"The weights of model {folder.name!r} are larger than 1 GiB: not accepted.")
    description, expected = read_description(description_file)
    actual = checksum(weights)
    if actual != expected:
        raise ModelPackageError(
            f"The weights of model {description.name!r} are not those it was published with (the checksum "
            "differs): install the package again from a source you trust."
        )
    return ModelPackage(folder, description, actual)


def write_package(
    folder: Path,
    description: ModelDescription,
    network: nn.Module,
    made_from: Mapping[str, Any] | None = None,
    *,
    exact: bool = False,
    license_text: str = "",
) -> ModelPackage:
    """Write ``network`` with its description, whole or not at all; an existing package is replaced.

    Kernels are written in half precision, unless ``exact``. Vectors, which are few, keep theirs: the variances of
    a layer's inputs may exceed the range of half precision, and infinity in their place would silence their
    channels.
    ``made_from``: what its provenance records, where known. ``license_text``: of a network made elsewhere.

    Raises:
        InputError: the folder holds something else, or cannot be written.
    """
    from safetensors.torch import save_file

    from .networks.build import own_weights

    weights = {
        name: (tensor.half() if not exact and tensor.is_floating_point() and tensor.ndim > 1 else tensor)
        .contiguous()
        .cpu()
        for name, tensor in own_weights(network).items()
    }
    return _write(folder, description, lambda path: save_file(weights, path), made_from, license_text)


def write_number_package(
    folder: Path,
    description: ModelDescription,
    arrays: Mapping[str, Array],
    made_from: Mapping[str, Any] | None = None,
) -> ModelPackage:
    """Like ``write_package``, for a model that is no network but arrays of numbers, kept as they are."""
    from safetensors.numpy import save_file

    return _write(folder, description, lambda path: save_file(dict(arrays), path), made_from)


def _write(
    folder: Path,
    description: ModelDescription,
    save: Callable[[Path], None],
    made_from: Mapping[str, Any] | None,
    license_text: str = "",
) -> ModelPackage:
    from safetensors import SafetensorError

    with whole_or_nothing(folder, Provenance(PACKAGE, made_from or {}), keep=[TRAINING_FOLDER]) as scratch:
        try:
            save(scratch / WEIGHTS_FILE)
        except SafetensorError as error:
            raise writing_fault(scratch / WEIGHTS_FILE) from error
        if license_text:
            (scratch / LICENSE_FILE).write_text(license_text, encoding="utf-8")
        values = description.to_json(checksum(scratch / WEIGHTS_FILE))
        (scratch / DESCRIPTION_FILE).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    return open_package(folder)


def shipped_models_folder() -> Path:
    """The folder of the models shipped with this software.

    It lies beside the library in the source tree and in Slicer, and inside the library in an installed Python
    package.
    """
    here = Path(__file__).parent
    beside = here.parents[1] / "Resources" / "Models"
    return beside if beside.is_dir() else here / "shipped"


def installed_models_folder() -> Path:
    """The folder of the user's own models; the environment variable ``HEMATOMA_MODELS`` overrides it."""
    chosen = os.environ.get("HEMATOMA_MODELS")
    return Path(chosen) if chosen else Path.home() / ".hematoma-expansion" / "models"


def available_packages() -> Iterator[ModelPackage | ModelPackageError]:
    """Every package, the user's before the shipped ones; a damaged one is yielded as its error."""
    for folder in (installed_models_folder(), shipped_models_folder()):
        if folder.is_dir():
            for entry in sorted(path for path in folder.iterdir() if (path / DESCRIPTION_FILE).exists()):
                try:
                    yield open_package(entry)
                except ModelPackageError as error:
                    yield error


def find_package(name_or_path: str | None, task: Task) -> ModelPackage:
    """The package with that name or in that folder; without a name, the shipped default for the task.

    Raises:
        ModelPackageError: there is none, it is damaged, or it is for another task.
    """
    package = (
        open_package(shipped_models_folder() / _SHIPPED.get(task, f"{task}-compact"))
        if name_or_path is None
        else locate_package(name_or_path)
    )
    if package.description.task != task:
        raise ModelPackageError(
            f"Model {package.description.name!r} is for {package.description.task}, not for {task}: "
            "see `hematoma models list`."
        )
    return package


def locate_package(name_or_path: str) -> ModelPackage:
    """The package with that name (the user's before the shipped ones) or in that folder.

    Raises:
        ModelPackageError: there is none, it is damaged, or the text names both a known model and a folder here.
    """
    if is_package_name(name_or_path):
        for folder in (installed_models_folder(), shipped_models_folder()):
            if (folder / name_or_path / DESCRIPTION_FILE).exists():
                if (Path(name_or_path) / DESCRIPTION_FILE).exists():
                    raise ModelPackageError(
                        f"{name_or_path!r} is a known model and a folder here too: write ./{name_or_path} for the "
                        "folder, or go elsewhere for the known model."
                    )
                return open_package(folder / name_or_path)
    if Path(name_or_path).is_dir():
        return open_package(Path(name_or_path))
    raise ModelPackageError(
        f"There is no model {Path(name_or_path).name!r}: `hematoma models list` names those installed."
    )


def install_package(source: Path) -> ModelPackage:
    """Copy the package in folder ``source`` to the user's models, after verifying it and loading it once.

    Raises:
        ModelPackageError: the package is damaged, or one with that name is already installed.
        InputError: it cannot be written.
    """
    if not source.is_dir():
        raise ModelPackageError("The model to install is not a folder with model.json, as a model package is.")
    package = open_package(source)
    package.check()
    models = installed_models_folder()
    target = models / package.description.name
    if target.exists():
        raise ModelPackageError(
            f"A model {package.description.name!r} is installed already: remove its folder first."
        )
    make_folder(models)
    with whole_or_nothing(target, read_provenance(source) or Provenance(PACKAGE)) as scratch:
        for name in (
            DESCRIPTION_FILE,
            WEIGHTS_FILE,
            *([LICENSE_FILE] if (source / LICENSE_FILE).is_file() else []),
        ):
            shutil.copyfile(source / name, scratch / name)
        open_package(scratch)
    return open_package(target)
