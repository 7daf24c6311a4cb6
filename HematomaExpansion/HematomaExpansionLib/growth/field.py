"""From the network's output to a displacement field that neither folds nor crosses bone."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from ..device import gpu_memory_errors
from ..models.description import INTEGRATION_STEPS
from ..models.package import ModelPackage
from ..scan.grid import Array, Grid, image_on
from ..scan.intensities import AIR_HU, scale_window
from ..scan.mask import Mask
from ..scan.resampling import average_onto
from ..scan.shapes import distance_map_on
from ..scan.subject import Subject

if TYPE_CHECKING:
    import torch

GROWTH_MARGIN_MM = 25.0
"""Margin around the baseline hematoma in which growth is predicted."""

# The field fades out over this distance toward bone, and over this many voxels toward the region's edge.
_FADE_MM, _FADE_VOXELS = 4.5, 3


def growth_region(
    hematoma: Mask,
    spacing: tuple[float, float, float],
    patch: tuple[int, int, int],
    margin_mm: float = GROWTH_MARGIN_MM,
) -> Grid:
    """Model grid around the hematoma with a margin, at least one patch large, along the scan's axes.

    ``spacing`` is in mm and ``patch`` in voxels, both (x, y, z); ``hematoma`` is not empty.
    """
    _, size = hematoma.box
    wanted = size * np.array(hematoma.grid.spacing) + 2 * margin_mm
    voxels = np.maximum(np.ceil(wanted / spacing), patch).astype(int)
    return hematoma.grid.centered_at(hematoma.box_center, voxels, spacing)


def growth_channels(subject: Subject, grid: Grid, window_hu: tuple[float, float]) -> Array:
    """Channels (3, z, y, x) on ``grid``: windowed CT, hematoma, and confinement of the field.

    The first two are the network's input; the third multiplies its output (see ``confined_displacement``).
    """
    inside = average_onto(subject.inside_skull.image, grid)
    brain = scale_window(average_onto(subject.ct, grid, outside=AIR_HU), window_hu) * inside
    return np.stack([brain, average_onto(subject.hematoma.image, grid), confinement_of(inside, grid)])


def confinement_of(inside: Array, grid: Grid) -> Array:
    """Factor from 1 deep inside the skull to 0 at bone.

    ``inside`` is the share of each voxel inside the skull; both are (z, y, x) on ``grid``.
    """
    depth_mm = distance_map_on(grid, inside > 0.5, is_positive_inside=True)
    return np.clip(depth_mm / _FADE_MM, 0.0, 1.0).astype(np.float32)


def _edge_window(shape: tuple[int, ...]) -> Array:
    """Factor from 1 within a region to 0 on its outermost voxels, (z, y, x)."""
    ramps = [np.minimum(np.arange(n), np.arange(n)[::-1]) / _FADE_VOXELS for n in shape]
    return np.clip(
        np.minimum(np.minimum(ramps[0][:, None, None], ramps[1][None, :, None]), ramps[2][None, None, :]),
        0,
        1,
    ).astype(np.float32)


def confined_displacement(field: torch.Tensor, confinement: torch.Tensor, integration_steps: int) -> torch.Tensor:
    """Displacement in voxels from a network's field, both (batch, 3, z, y, x), components in that order.

    ``confinement`` (batch, 1, z, y, x) scales the field before the integration: a flow that stands still at bone
    cannot cross it, whereas scaling a displacement afterward could fold it.
    """
    import torch
    from monai.networks.blocks import DVF2DDF

    edge = torch.from_numpy(_edge_window(tuple(field.shape[2:]))).to(field)
    field = field * confinement * edge
    if integration_steps == 0:
        return field
    with _quiet_monai():
        return DVF2DDF(num_steps=integration_steps)(field)


def warp(image: torch.Tensor, displacement: torch.Tensor) -> torch.Tensor:
    """Spatial transformer: ``image(x + displacement(x))``, linear; (batch, channel, z, y, x), in voxels."""
    from monai.networks.blocks import Warp

    with _quiet_monai():
        return Warp()(image, displacement)


@contextmanager
def _quiet_monai() -> Iterator[None]:
    """Silence MONAI's warning at each use that its compiled warp is absent; torch's own is wanted here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="monai.networks.blocks.Warp")
        yield


@dataclass(frozen=True)
class Flow:
    """A network's field around a hematoma, in voxels of ``region``, (3, z, y, x), components in that order.

    ``confinement`` (1, z, y, x) and ``integration_steps`` as for ``confined_displacement``.
    """

    region: Grid
    field: Array
    confinement: Array
    integration_steps: int

    def displacement(self, strength: float) -> sitk.Image:
        """The displacement at this strength, a vector image on ``region`` in mm, LPS.

        A velocity is integrated in more steps where it is stronger, so that it does not fold.
        """
        import torch

        steps = self.integration_steps
        if steps > 0 and strength > 1:
            steps += math.ceil(math.log2(strength))
        field, confinement = (torch.from_numpy(array)[None] for array in (self.field, self.confinement))
        voxels = confined_displacement(strength * field, confinement, steps)[0].numpy()
        return image_on(self.region, to_millimeters(voxels, self.region))


def flow_of(subject: Subject, package: ModelPackage, device: torch.device) -> Flow:
    """The growth network's field for a subject whose hematoma is not empty.

    Raises:
        ModelPackageError: the package's weights do not fit.
        DeviceError: the GPU runs out of memory.
    """
    import torch
    from monai.inferers import sliding_window_inference

    description, network = package.description, package.load()
    region = growth_region(subject.hematoma, description.spacing_mm, description.patch_size)
    channels = growth_channels(subject, region, description.window_hu)
    x, y, z = description.patch_size
    with gpu_memory_errors("for this prediction"), torch.inference_mode():
        network.to(device)
        inputs = torch.from_numpy(channels[None, :2]).to(device)
        field = sliding_window_inference(inputs, (z, y, x), 2, network, overlap=0.5, mode="gaussian")
        found = field[0].float().cpu().numpy()
    return Flow(region, found, channels[2:], description.settings.get(INTEGRATION_STEPS, 0))


def to_millimeters(voxels: Array, grid: Grid) -> Array:
    """Displacement (3, z, y, x) in voxels, components z, y, x, to (z, y, x, 3) in mm, LPS."""
    return np.einsum("pc,czyx->zyxp", grid.axes, voxels[::-1]).astype(np.float32)
