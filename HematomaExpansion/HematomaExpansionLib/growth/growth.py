"""Growth of a hematoma: baseline CT and mask -> displacement field -> predicted follow-up CT and mask.

After Abramova 2024, sections 2.4 and 2.4.1: a U-Net gives a dense field, a spatial transformer warps the
baseline with it. The field is a pull-back in mm, LPS: ``predicted(x) = baseline(x + u(x))``.

Three additions. The network's output may be a velocity that is integrated by scaling and squaring, so that
the displacement cannot fold. The field is confined: it fades to zero at the inside of the skull and at the edge
of the region, so a flow along it can carry no blood through bone. And it may be stronger or weaker by a
probability of expansion, which another model tells from signs that a network on a coarse grid sees less well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import SimpleITK as sitk

from ..forecast.strength import growth_strength
from ..models.package import ModelPackage
from ..scan.grid import image_on
from .field import growth_channels, growth_region, network_displacement, to_millimeters
from .warping import field_on, warp_ct, warp_mask, with_part

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Growth:
    """A predicted growth, all three on the baseline scan's grid.

    ``displacement`` is a vector image in mm, LPS; ``followup_ct`` in HU; ``followup_mask`` 0 or 1.
    """

    displacement: sitk.Image
    followup_ct: sitk.Image
    followup_mask: sitk.Image

    def mapped(self, function: Callable[[sitk.Image], sitk.Image]) -> Growth:
        """``function`` applied to each image."""
        return Growth(function(self.displacement), function(self.followup_ct), function(self.followup_mask))


def predict_growth(
    ct: sitk.Image,
    hematoma: sitk.Image,
    inside_skull: sitk.Image,
    package: ModelPackage,
    probability: float | None,
    device: torch.device,
) -> Growth:
    """Predicted growth of ``hematoma`` (0/1, not empty) in ``ct`` (HU); all on one orthogonal grid.

    ``probability`` of expansion, or None where none is told: see ``growth_strength``.

    Raises:
        ModelPackageError: the package's weights do not fit.
        DeviceError: the GPU's memory does not suffice.
    """
    description = package.description
    region = growth_region(hematoma, description.spacing_mm, description.patch_size)
    channels = growth_channels(ct, hematoma, inside_skull, region, description.window_hu)
    strength = growth_strength(description, probability)
    voxels = network_displacement(channels, package, strength, device)
    displacement = field_on(ct, image_on(region, to_millimeters(voxels, region)))
    still = sitk.Image(ct.GetSize(), displacement.GetPixelID(), 3)
    still.CopyInformation(ct)
    grown = warp_mask(hematoma, displacement)
    return Growth(
        with_part(still, displacement),
        with_part(ct, warp_ct(ct, hematoma, grown, displacement)),
        with_part(hematoma, grown),
    )
