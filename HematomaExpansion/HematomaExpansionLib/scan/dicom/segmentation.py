"""Masks stored as DICOM Segmentation (SEG) objects.

highdicom reads them: frames in any order, empty ones left out, several segments (even overlapping) in one file.
Coordinates are LPS millimeters, arrays are (z, y, x).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom

from ...errors import InputError, MissingLibraryError
from ..grid import Array, Grid
from ..mask import Mask
from ..mask_labels import Segment, choose_segment
from ..volume import check_size
from ..volume_files import quiet_libraries
from .files import dicom_header, files_below, is_dicom

if TYPE_CHECKING:
    from highdicom.seg import Segmentation


_SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")  # frames of 0 and 1, label maps
# Empty frames may be missing, positions may be rounded, and the gantry may be tilted by up to 45 degrees.
_STACK: dict[str, Any] = {"allow_missing_positions": True, "rtol": 0.05, "perpendicular_tol": 0.3}

_EXPORT = "Export the mask as DICOM SEG, NIfTI or NRRD."


def is_dicom_mask(path: Path) -> bool:
    """Whether to read a mask as DICOM: it is a folder, or a file that looks like DICOM."""
    return path.is_dir() or (path.is_file() and is_dicom(path))


def read_dicom_segmentation(path: Path, label: str | None) -> Mask:
    """One segment on the segmentation's own grid; it may be empty.

    ``path`` is the file, or a folder with one segmentation among other files; if there are several segments,
    ``label`` names one by its number or label.

    Raises:
        InputError: there is no segmentation or more than one, it is damaged, or ``label`` does not say which
            segment.
        MissingLibraryError: highdicom is not installed.
    """
    file = _segmentation_among(files_below(path) if path.is_dir() else [path])
    try:
        with quiet_libraries():
            from highdicom.seg import segread
    except ImportError as error:
        raise MissingLibraryError(
            "Masks in DICOM (SEG) need highdicom: run `pip install hematoma-expansion[dicom]`."
        ) from error
    try:
        with quiet_libraries():
            segmentation = segread(file)
            segments = [_segment(item) for item in segmentation.SegmentSequence]
    except Exception:
        raise _damaged() from None
    chosen = choose_segment([segment for segment in segments if segment.number > 0], label)
    return _mask(segmentation, chosen)


def _segment(item: pydicom.Dataset) -> Segment:
    return Segment(int(item.SegmentNumber), str(item.get("SegmentLabel", "")).strip())


def _segmentation_among(files: list[Path]) -> Path:
    headers = [(file, dicom_header(file)) for file in files if is_dicom(file)]
    found = [file for file, header in headers if header.get("SOPClassUID") in _SEGMENTATIONS]
    if len(found) > 1:
        raise InputError(f"The folder holds {len(found)} DICOM segmentations. Give the file of one as the mask.")
    if found:
        return found[0]
    modalities = {str(header.get("Modality", "")) for _, header in headers}
    if "RTSTRUCT" in modalities:
        raise InputError(f"The mask is a set of contours (RTSTRUCT), which is not supported. {_EXPORT}")
    what = (
        "holds DICOM images, but no segmentation (SEG)" if headers else "is a folder without a DICOM segmentation"
    )
    raise InputError(f"The mask {what}. {_EXPORT}")


def _mask(segmentation: Segmentation, segment: Segment) -> Mask:
    try:
        with quiet_libraries():
            geometry = segmentation.get_volume_geometry(**_STACK)
            if geometry is not None:
                check_size(geometry.spatial_shape)
                volume = segmentation.get_volume(segment_numbers=[segment.number], **_STACK)
                inside = np.asarray(volume.array)[..., 0] > 0.5
                axes = _sheared(np.asarray(volume.affine), segmentation)
                return Mask.on(_grid(axes, inside.shape), inside)
    except InputError:
        raise
    except Exception:
        raise _damaged() from None
    raise InputError("The DICOM segmentation's slices are unevenly spaced. Export the mask as NIfTI or NRRD.")


def _sheared(affine: Array, segmentation: Segmentation) -> Array:
    """``affine`` from (slice, row, column) to LPS mm with the true step from slice to slice.

    highdicom assumes that slices lie straight above each other; those of a tilted gantry do not.
    """
    normal = affine[:3, 0]
    offsets = _positions(segmentation) - affine[:3, 3]
    steps = np.rint(offsets @ normal / (normal @ normal))
    last = int(np.argmax(steps))
    if steps[last] < 1:
        return affine
    true = affine.copy()
    true[:3, 0] = offsets[last] / steps[last]
    return true


def _positions(segmentation: Segmentation) -> Array:
    """LPS position (frame, 3) in mm of the first pixel of each frame that states its own."""
    frames = [frame.get("PlanePositionSequence") for frame in segmentation.PerFrameFunctionalGroupsSequence]
    return np.array([group[0].ImagePositionPatient for group in frames if group], dtype=float).reshape(-1, 3)


def _grid(affine: Array, shape: tuple[int, ...]) -> Grid:
    """The grid of an array (slice, row, column) whose indices ``affine`` maps to LPS mm."""
    axes = affine[:3, 2::-1]
    spacing = np.linalg.norm(axes, axis=0)
    return Grid(
        (shape[2], shape[1], shape[0]),
        (float(spacing[0]), float(spacing[1]), float(spacing[2])),
        (float(affine[0, 3]), float(affine[1, 3]), float(affine[2, 3])),
        tuple(float(v) for v in (axes / spacing).ravel()),
    )


def _damaged() -> InputError:
    return InputError("The DICOM segmentation is damaged or cut off. Export it again.")
