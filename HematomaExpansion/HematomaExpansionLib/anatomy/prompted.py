"""Segmentation in a box by MedSAM (Ma 2024), slice by slice, each as its authors' own program sees it."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from ..device import gpu_memory_errors
from ..errors import InputError
from ..models.package import ModelPackage
from ..progress import Share, unheard
from ..scan.box import Box, IndexBox
from ..scan.grid import Array
from ..scan.intensities import scale_window
from ..scan.mask import Mask

if TYPE_CHECKING:
    import torch

MARGIN = 10 / 1024
"""How far a box lies from what is in it, as a share of the picture: the mean in MedSAM's training, which moves
each side of a box outward by up to twice as much."""

_MAX_EMBEDDINGS = 64
"""Of slices, kept in memory: 4 MiB each for MedSAM's own sizes."""

_embeddings: OrderedDict[tuple[str, str, str], torch.Tensor] = OrderedDict()


def check_prompt(package: ModelPackage | None, box: Box | None) -> None:
    """Raise ``InputError`` if a box is given to a segmenter that does not look in boxes."""
    if box is not None and not (package is not None and package.description.is_promptable):
        raise InputError(
            "A box needs a segmentation model that looks in one, such as MedSAM: choose it (--segmenter), or "
            "choose no box."
        )


def picture_of(hu: Array, window_hu: tuple[float, float], size: int) -> Array:
    """A slice (y, x) in HU as MedSAM sees it: float32, (size, size), from 0 to 1.

    The window is scaled to whole numbers up to 255, the slice stretched to a square by cubic interpolation after
    smoothing where it shrinks, rounded down again, and its own range scaled to 0 and 1. Its authors resize with
    scikit-image, which computes the same.
    """
    gray = np.floor(255 * scale_window(hu, window_hu)).astype(float)
    shrinking = np.array(gray.shape) / size
    smooth = ndimage.gaussian_filter(gray, np.maximum(0, (shrinking - 1) / 2), mode="mirror")
    square = ndimage.zoom(smooth, 1 / shrinking, order=3, mode="mirror", grid_mode=True)
    square = np.floor(np.clip(square, gray.min(), gray.max()))
    low, high = square.min(), square.max()
    return ((square - low) / max(high - low, 1e-8)).astype(np.float32)


def box_around(mask: Mask) -> IndexBox:
    """The box around a nonempty mask, with the margin that MedSAM is used to, as far as the grid reaches."""
    first, size = mask.box
    grid_size = np.array(mask.grid.size)
    margin = MARGIN * grid_size * (1, 1, 0)
    (x0, y0, z0) = np.maximum(first - margin, 0).tolist()
    (x1, y1, z1) = np.minimum(first + size - 1 + margin, grid_size - 1).tolist()
    return IndexBox((x0, y0, z0), (x1, y1, z1))


def box_in_picture(box: IndexBox, shape: tuple[int, ...], size: int) -> list[float]:
    """First x and y and last x and y of a box, on slices of that shape (y, x), in pixels of a picture of ``size``.

    Coordinates are scaled as MedSAM's authors scale them, without regard to where in a pixel its center is.
    """
    (x0, y0, _), (x1, y1, _), (rows, columns) = box.first, box.last, shape
    return [x0 * size / columns, y0 * size / rows, x1 * size / columns, y1 * size / rows]


def mask_in_box(
    ct: sitk.Image,
    inside_skull: Mask,
    package: ModelPackage,
    box: IndexBox,
    device: torch.device,
    progress: Share = unheard,
) -> Mask:
    """What a promptable model outlines inside the skull on the axial slices that a box crosses.

    Args:
        ct: HU, its axes nearest to LPS.
        inside_skull: on the same grid.
        package: the model.
        box: on the same grid; each slice gets its cross-section as prompt.
        device: where to compute.
        progress: told the share of the slices that are done, before each.

    Raises:
        DeviceError: the GPU runs out of memory.
    """
    import torch

    hu, inside = sitk.GetArrayViewFromImage(ct), inside_skull.voxels
    found = np.zeros(hu.shape, bool)
    slices = [k for k in box.slices if inside[k].any()]
    window, size = package.description.window_hu, package.description.patch_size[0]
    with gpu_memory_errors("to segment"), torch.inference_mode():
        network: Any = package.load().to(device)
        prompt = torch.tensor([box_in_picture(box, hu.shape[1:], size)], device=device)
        for done, k in enumerate(slices):
            progress(done / len(slices))
            picture = picture_of(hu[k], window, size)
            embedding = _embedded(picture, network.embedded, package.sha256, device)
            probability = torch.sigmoid(network.in_boxes(embedding, prompt).float())
            whole = torch.nn.functional.interpolate(
                probability, hu.shape[1:], mode="bilinear", align_corners=False
            )
            found[k] = whole[0, 0].cpu().numpy() > 0.5
    return Mask.on(inside_skull.grid, found & inside)


def _embedded(
    picture: Array, encode: Callable[[torch.Tensor], torch.Tensor], sha256: str, device: torch.device
) -> torch.Tensor:
    """The embedding of a picture by the model with that checksum; encoding takes nearly all of the time, so the
    last ones are kept for another box on the same scan.
    """
    import torch

    key = (sha256, hashlib.sha256(picture.tobytes()).hexdigest(), device.type)
    if key in _embeddings:
        _embeddings.move_to_end(key)
        return _embeddings[key].to(device)
    embedding = encode(torch.from_numpy(picture)[None, None].to(device))
    _embeddings[key] = embedding.cpu()
    if len(_embeddings) > _MAX_EMBEDDINGS:
        _embeddings.popitem(last=False)
    return embedding
