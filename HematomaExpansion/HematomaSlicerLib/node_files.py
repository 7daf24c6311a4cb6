"""Writes nodes of the scene as files for the engine's commands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import SimpleITK as sitk
import slicer

from .node_images import image_from_segment, image_from_volume


@dataclass(frozen=True)
class Segment:
    """A segment that the user chose as the hematoma."""

    node: slicer.vtkMRMLSegmentationNode
    segment_id: str


def write_volume(node: slicer.vtkMRMLScalarVolumeNode, path: Path) -> str:
    """Write a volume, placed where the user sees it, for a command; returns the path as text."""
    return _write(image_from_volume(node), path)


def write_segment(segment: Segment, path: Path) -> str:
    """Write a segment as a mask (0/1), for a command; returns the path as text."""
    return _write(image_from_segment(segment.node, segment.segment_id), path)


def _write(image: sitk.Image, path: Path) -> str:
    sitk.WriteImage(image, str(path))
    return str(path)
