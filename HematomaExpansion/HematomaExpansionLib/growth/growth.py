"""Growth of a hematoma: baseline CT and mask -> displacement field -> predicted follow-up CT and mask.

After Abramova 2024, sections 2.4 and 2.4.1: a U-Net gives a dense field, and a spatial transformer warps the
baseline with it. The field is a pull-back in mm, LPS: ``predicted(x) = baseline(x + u(x))``.

There are three additions. The network's output may be a velocity field that is integrated by scaling and squaring,
so that the displacement cannot fold. The field is confined: it fades to zero at the skull's inner surface and at
the edge of the region, so a flow along it cannot carry blood through bone. And its strength can be set, for
example by the probability of expansion (``forecast.strength``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import SimpleITK as sitk

from ..models.package import ModelPackage
from ..scan.grid import image_on
from ..scan.head_ct import HeadCT
from ..scan.mask import Mask
from ..scan.subject import Subject
from .field import growth_channels, growth_region, network_displacement, to_millimeters
from .warping import field_on, warp_ct, warp_mask, with_part

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Growth:
    """A predicted growth, with all three parts on the baseline scan's grid.

    ``displacement`` is a vector image in mm, LPS; ``followup_ct`` is in HU.
    """

    displacement: sitk.Image
    followup_ct: sitk.Image
    followup_mask: Mask

    def restored(self, scan: HeadCT) -> Growth:
        """The same in the stored axis order of the baseline scan."""
        displacement, followup_ct = (scan.restore(image) for image in (self.displacement, self.followup_ct))
        return Growth(displacement, followup_ct, scan.restore_mask(self.followup_mask))


def predict_growth(subject: Subject, package: ModelPackage, strength: float, device: torch.device) -> Growth:
    """Predict the growth of a subject's hematoma, which is not empty; ``strength`` scales the field.

    Raises:
        ModelPackageError: the package's weights do not fit.
        DeviceError: the GPU runs out of memory.
    """
    description = package.description
    ct, hematoma = subject.ct, subject.hematoma
    region = growth_region(hematoma, description.spacing_mm, description.patch_size)
    channels = growth_channels(subject, region, description.window_hu)
    voxels = network_displacement(channels, package, strength, device)
    displacement = field_on(ct, image_on(region, to_millimeters(voxels, region)))
    still = sitk.Image(ct.GetSize(), displacement.GetPixelID(), 3)
    still.CopyInformation(ct)
    grown = warp_mask(hematoma, displacement)
    return Growth(
        with_part(still, displacement),
        with_part(ct, warp_ct(ct, hematoma, grown, displacement)),
        Mask(with_part(hematoma.image, grown.image)),
    )
