"""Reads weight files made elsewhere. A PyTorch file is a pickle, which may run any program when it is opened; here
it is opened only as far as it holds numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ModelPackageError

if TYPE_CHECKING:
    from torch import Tensor, nn

_AGAIN = "get it again from those who made it"


def weight_files(paths: Sequence[Path], endings: Sequence[str]) -> list[Path]:
    """The weight files that ``paths`` stand for: themselves, or those with these endings in a folder, by name.

    Raises:
        ModelPackageError: there are none.
    """
    found: list[Path] = []
    for path in paths:
        inside = (
            sorted(entry for entry in path.iterdir() if entry.name.endswith(tuple(endings)))
            if path.is_dir()
            else [path]
        )
        found += [entry for entry in inside if entry.is_file()]
    if not found or any(not path.exists() for path in paths):
        raise ModelPackageError(
            f"There are no weights to import: name the files ({', '.join(endings)}), or the folder that holds "
            "them."
        )
    return found


def json_in(file: Path, remedy: str) -> dict[str, Any]:
    """What a JSON file beside the weights holds; ``remedy``: what to do if it is missing.

    Raises:
        ModelPackageError: it is missing or damaged.
    """
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelPackageError(f"The folder has no {file.name}: {remedy}.") from error
    except ValueError as error:
        raise ModelPackageError(f"{file.name} is damaged: {_AGAIN}.") from error
    if not isinstance(values, dict):
        raise ModelPackageError(f"{file.name} is damaged: {_AGAIN}.")
    return values


def read_checkpoint(path: Path, allowed: Sequence[Any] = ()) -> Any:
    """What a PyTorch file holds, on the CPU: numbers, texts and lists of them, and objects of ``allowed`` classes.

    Raises:
        ModelPackageError: it holds anything else, or cannot be read.
    """
    import torch

    try:
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        if "nsupported" in str(error):  # the file asks for a function or class to be called
            raise ModelPackageError(
                "The weight file holds more than weights: it would run a program when opened, so it was refused, "
                f"and nothing in it was run. If you trust it, {_AGAIN} as plain weights (a state dict)."
            ) from error
        raise ModelPackageError(f"The weight file is damaged, or no file of PyTorch: {_AGAIN}.") from error


def fill(network: nn.Module, weights: Any, what: str) -> None:
    """Load ``weights`` into a network, ``what`` in words.

    Raises:
        ModelPackageError: they are those of another network, or not all of them are numbers.
    """
    import torch

    if not isinstance(weights, Mapping) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise ModelPackageError(f"The file holds no weights of {what}: choose another file, or another kind.")
    tensors: dict[str, Tensor] = {str(name): value for name, value in weights.items()}
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise ModelPackageError(
            f"The weights are not those of {what}, but of another network: choose another file, or another kind."
        ) from error
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values() if tensor.is_floating_point()):
        raise ModelPackageError(f"Some of the weights are no numbers: {_AGAIN}.")


def license_of(distribution: str) -> str:
    """The text of the license that an installed library came with; empty if it came without."""
    try:
        found = [file for file in files(distribution) or [] if file.name.upper().startswith("LICEN")]
    except PackageNotFoundError:
        return ""
    return str(found[0].read_text()) if found else ""
