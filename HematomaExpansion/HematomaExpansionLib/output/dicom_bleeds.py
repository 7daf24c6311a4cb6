"""Bleeds as a DICOM segmentation (SEG), for an archive to file with the scan: a segment with its code per kind.

Unlike everything else that is written, it carries the patient's identity, as the scan's own files do.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom

from .. import __version__
from ..anatomy.bleeds import Bleeds
from ..anatomy.kinds import CATEGORY, LOOKS, Code, Kind
from ..errors import InputError, MissingLibraryError
from ..scan.grid import Array, Grid
from ..scan.volume_files import quiet_libraries

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription
    from highdicom.sr import CodedConcept

_SOFTWARE = "HematomaExpansion"
_EXPECTED = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName"),
)
"""What every DICOM image has, if only empty; some exports leave it out."""


def check_dicom_output(files: Sequence[Path]) -> None:
    """Raise if the scan is not in DICOM (``InputError``), or highdicom is missing (``MissingLibraryError``)."""
    if not files:
        raise InputError("--dicom files the result with a scan in DICOM: give such a scan, or leave --dicom out.")
    try:
        with quiet_libraries():
            import highdicom.seg  # noqa: F401
    except ImportError as error:
        raise MissingLibraryError(
            "Results in DICOM need highdicom: run `pip install hematoma-expansion[dicom]`."
        ) from error


@quiet_libraries()
def write_dicom_bleeds(bleeds: Bleeds, files: Sequence[Path], segmenter: str | None, path: Path) -> None:
    """Write the kinds found in the scan with these files, each as a segment; nothing if none was found.

    ``segmenter``: the name of the method that found them; None if the user drew the hematoma.
    """
    from highdicom import UID, Volume
    from highdicom.seg import Segmentation

    kinds = [kind for kind in Kind if bleeds.volume_ml(kind)]
    if not kinds:
        return
    sources = [_source(file, bleeds.grid.spacing[2]) for file in files]
    numbers = np.zeros(max(Kind) + 1, np.uint8)
    numbers[kinds] = np.arange(1, len(kinds) + 1)  # a SEG numbers its segments without gaps
    volume = Volume(
        numbers[bleeds.voxels],
        _affine(bleeds.grid),
        coordinate_system="PATIENT",
        frame_of_reference_uid=sources[0].FrameOfReferenceUID,
    )
    segmentation = Segmentation(
        source_images=sources,
        pixel_array=volume,
        segmentation_type="BINARY",
        segment_descriptions=[_description(kind, number, segmenter) for number, kind in enumerate(kinds, start=1)],
        series_instance_uid=UID(),
        series_number=9000,
        sop_instance_uid=UID(),
        instance_number=1,
        manufacturer=_SOFTWARE,
        manufacturer_model_name=_SOFTWARE,
        software_versions=__version__,
        device_serial_number="none",
        content_description="Bleeds. Research use only.",
        series_description="Bleeds (research use only)",
    )
    segmentation.save_as(path)


def _source(file: Path, slice_mm: float) -> pydicom.Dataset:
    """The header of one of the scan's files, with what it lacks."""
    header: pydicom.Dataset = pydicom.dcmread(file, stop_before_pixels=True)
    for keyword in (keyword for keyword in _EXPECTED if keyword not in header):
        setattr(header, keyword, "")
    if not header.get("SliceThickness"):
        header.SliceThickness = f"{slice_mm:.6g}"
    return header


def _affine(grid: Grid) -> Array:
    """From indices (slice, row, column) to LPS mm."""
    affine = np.eye(4)
    affine[:3, :3] = grid.axes[:, ::-1]
    affine[:3, 3] = grid.origin
    return affine


def _description(kind: Kind, number: int, segmenter: str | None) -> SegmentDescription:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentDescription
    from pydicom.sr.codedict import codes

    look = LOOKS[kind]
    algorithm: dict[str, Any] = {"algorithm_type": "MANUAL"}
    if segmenter is not None:
        family = codes.cid7162.ArtificialIntelligence
        identity = AlgorithmIdentificationSequence(segmenter, family=family, version=__version__)
        algorithm = {"algorithm_type": "AUTOMATIC", "algorithm_identification": identity}
    return SegmentDescription(
        segment_number=number,
        segment_label=look.title,
        segmented_property_category=_concept(CATEGORY),
        segmented_property_type=_concept(look.concept),
        anatomic_regions=[_concept(look.region)],
        display_color=CIELabColor.from_string(look.color),
        **algorithm,
    )


def _concept(code: Code) -> CodedConcept:
    from highdicom.sr import CodedConcept

    return CodedConcept(code.value, "SCT", code.meaning)
