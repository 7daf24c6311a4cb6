"""An image as a file holds it, before anything is known about its content."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import SimpleITK as sitk

from ..errors import InputError

MAX_SIZE = (1024, 1024, 1200)


@dataclass(frozen=True)
class Volume:
    """An image on its own grid in LPS mm, which may be oblique, flipped or sheared.

    Attributes:
        image: one or more values per voxel, of any type.
        notes: sentences for the user about how it was read.
        is_position_certain: whether the file states unambiguously where in the patient the voxels lie.
    """

    image: sitk.Image
    notes: tuple[str, ...] = ()
    is_position_certain: bool = True


def check_size(size: Sequence[int]) -> None:
    """Refuse anything far larger than a head CT before allocating memory for it."""
    if math.prod(size) > math.prod(MAX_SIZE) or max(size) > 4 * max(MAX_SIZE):
        raise InputError(
            f"The scan has {' × '.join(str(n) for n in size)} voxels, far more than a head CT. "
            "Choose the series of the head."
        )


def check_dimensions(count: int, what: str) -> None:
    """Refuse an image that is not three-dimensional."""
    if count != 3:
        raise InputError(
            f"The {what} has {count} dimensions; one three-dimensional volume is needed. Export a single volume."
        )


def scalar_volume(image: sitk.Image, what: str) -> sitk.Image:
    """``image``, or the only volume of a series: three-dimensional, one real number per voxel.

    Raises:
        InputError: the image is anything else.
    """
    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        image = image[:, :, :, 0]
    check_dimensions(image.GetDimension(), what)
    if image.GetNumberOfComponentsPerPixel() != 1 or "complex" in image.GetPixelIDTypeAsString():
        raise not_scalar(what)
    return image


def not_scalar(what: str) -> InputError:
    """The error for an image with several values per voxel."""
    if what == "mask":
        return InputError("The mask has several values per voxel. Export it as one label map.")
    return InputError(f"The {what} holds colors or vectors, not Hounsfield units. Export the original CT series.")


def no_position_note(what: str) -> str:
    """The note for an image whose file does not say how it lies in the patient."""
    return (
        f"The {what}'s file does not say which way the head lies. It was taken as stored from right to left, "
        "front to back and feet to head: left and right, and top and bottom, may be wrong."
    )
