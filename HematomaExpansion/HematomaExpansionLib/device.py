"""Which processor the networks run on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import DeviceError, InputError, MissingLibraryError

if TYPE_CHECKING:
    import torch


def choose_device(name: str = "auto") -> torch.device:
    """The device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; ``auto`` takes a GPU where there is one.

    Raises:
        MissingLibraryError: torch is not installed.
        InputError: the name is none of those.
        DeviceError: that GPU is not there.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingLibraryError(
            "PyTorch is not installed: in Slicer install the PyTorch extension, elsewhere run `pip install torch`."
        ) from error
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    kind, _, number = name.partition(":")
    if kind != "cuda" or (number and not number.isdigit()):
        raise InputError(f"There is no device {name!r}: choose auto, cpu, cuda or cuda:N.")
    if not torch.cuda.is_available() or int(number or 0) >= torch.cuda.device_count():
        raise DeviceError(f"This computer has no usable GPU {name!r}: choose --device cpu.")
    return torch.device(name)
