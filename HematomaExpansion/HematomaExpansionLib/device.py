"""Which processor the networks run on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from .errors import DeviceError, InputError, MissingLibraryError

if TYPE_CHECKING:
    import torch

Result = TypeVar("Result")

GPU_OUT_OF_MEMORY = "The GPU has too little free memory {purpose}: choose --device cpu."

GPU_MEMORY = "The GPU had too little free memory; the CPU was used in its place, which takes longer."


def choose_device(name: str = "auto") -> torch.device:
    """The device for ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; ``auto`` takes a GPU if there is one.

    Raises:
        MissingLibraryError: torch is not installed.
        InputError: the name is none of those.
        DeviceError: there is no such GPU.
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


@contextmanager
def gpu_memory_errors(purpose: str) -> Iterator[None]:
    """Within the block, a GPU that runs out of memory raises an error whose sentence contains ``purpose``.

    Raises:
        DeviceError: the GPU runs out of memory.
    """
    import torch

    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise DeviceError(GPU_OUT_OF_MEMORY.format(purpose=purpose)) from error


def compute_on(
    device: torch.device, compute: Callable[[torch.device], Result], warnings: list[str]
) -> tuple[Result, torch.device]:
    """The result of ``compute`` on ``device``, or on the CPU if the GPU runs out of memory, and the device used.

    In the second case, a sentence is added to ``warnings``.

    Raises:
        DeviceError: ``compute`` raised it on the CPU.
    """
    try:
        return compute(device), device
    except DeviceError:
        if device.type == "cpu":
            raise
    warnings.append(GPU_MEMORY)
    reserve = choose_device("cpu")
    return compute(reserve), reserve
