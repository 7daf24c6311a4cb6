"""Growth of a hematoma: baseline CT and mask -> displacement field -> predicted follow-up CT and mask.

After Abramova 2024, sections 2.4 and 2.4.1: a U-Net gives a dense field, and a spatial transformer warps the
baseline with it. The field is a pull-back in mm, LPS: ``predicted(x) = baseline(x + u(x))``.

There are three additions. The network's output may be a velocity field that is integrated by scaling and squaring,
so that the displacement cannot fold. The field is confined: it fades to zero at the skull's inner surface and at
the edge of the region, so a flow along it cannot carry blood through bone. And its strength can be chosen, so that
one field leads to all outcomes from small to large (``outcomes``).
"""

from __future__ import annotations

from dataclasses import dataclass

import SimpleITK as sitk

from ..scan.head_ct import HeadCT
from ..scan.mask import Mask


@dataclass(frozen=True)
class Growth:
    """One outcome, on the baseline scan's grid.

    ``displacement`` is a vector image in mm, LPS; ``followup_ct`` is in HU. ``order`` covers a box of that grid:
    the volume in mL of the smallest outcome that reaches a voxel (see ``outcomes``).
    """

    displacement: sitk.Image
    followup_ct: sitk.Image
    followup_mask: Mask
    order: sitk.Image

    def restored(self, scan: HeadCT) -> Growth:
        """The same in the stored axis order of the baseline scan."""
        displacement, followup_ct, order = (
            scan.restore(image) for image in (self.displacement, self.followup_ct, self.order)
        )
        return Growth(displacement, followup_ct, scan.restore_mask(self.followup_mask), order)
