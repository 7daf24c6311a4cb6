"""The ICBM152 tissue maps that come with the ``nilearn`` package, and what is derived from them once."""

from __future__ import annotations

from functools import cache

import numpy as np
import SimpleITK as sitk
from HematomaExpansionLib.errors import MissingLibraryError
from HematomaExpansionLib.scan.grid import Array, Grid, image_on
from HematomaExpansionLib.scan.shapes import distance_map, largest_component
from scipy.ndimage import binary_dilation, binary_opening

MEAN_SCALE = 0.915
"""Factor for lengths: the ICBM152 brain is larger than people's (filled, 1,890 mL against about 1,450 mL)."""

STRAIGHT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

# Half the width in mm of fissures that the skull does not follow.
_BRIDGED_MM = 14.0
# Air around the brain, to make room for skull and scalp.
_MARGIN_MM = 24
# The lateral ventricles are the largest CSF space at least this deep in the brain.
_VENTRICLE_DEPTH_MM = 20.0


@cache
def template() -> sitk.Image:
    """Vector image (LPS, 1 mm): share of gray matter, of white matter, of lateral ventricle (0 to 1), and the
    distance to the inside of the skull in mm, negative inside.

    Raises:
        MissingLibraryError: nilearn is not installed.
    """
    try:
        from nilearn import datasets
    except ImportError as error:
        raise MissingLibraryError(
            "Simulation needs nilearn for its anatomy: run `pip install hematoma-expansion[sim]`."
        ) from error
    maps = [
        datasets.load_mni152_gm_template(resolution=1),
        datasets.load_mni152_wm_template(resolution=1),
        datasets.load_mni152_brain_mask(resolution=1),
    ]
    # nilearn's arrays are (x, y, z) toward right, anterior, superior.
    gray, white, brain = (
        np.pad(np.asarray(image.dataobj, dtype=np.float32)[::-1, ::-1, :].transpose(2, 1, 0), _MARGIN_MM)
        for image in maps
    )
    last = (np.array(maps[0].shape) - 1) @ maps[0].affine[:3, :3].T + maps[0].affine[:3, 3]
    size = np.array(maps[0].shape) + 2 * _MARGIN_MM
    origin = np.array([-last[0], -last[1], maps[0].affine[2, 3]]) - _MARGIN_MM
    grid = Grid(
        (int(size[0]), int(size[1]), int(size[2])),
        (1.0, 1.0, 1.0),
        (float(origin[0]), float(origin[1]), float(origin[2])),
        STRAIGHT,
    )
    depth = _distance_from(_distance_from(brain > 0.5) <= _BRIDGED_MM) + _BRIDGED_MM
    ventricles = _ventricles((brain > 0.5) * np.clip(1 - gray - white, 0, 1), depth)
    return image_on(grid, np.stack([gray, white, ventricles, depth], axis=-1).astype(np.float32))


def _distance_from(mask: Array) -> Array:
    """Distance in voxels to the mask's surface, negative inside."""
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    return sitk.GetArrayFromImage(distance_map(image))


def _ventricles(csf: Array, depth: Array) -> Array:
    cavities = binary_opening((csf > 0.5) & (depth < -_VENTRICLE_DEPTH_MM))
    return csf * binary_dilation(largest_component(cavities))
