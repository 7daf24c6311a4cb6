"""Where hematoma masks come from when many scans are processed the same way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import SimpleITK as sitk

from ..models.package import ModelPackage
from ..scan.mask import Mask, MaskKind
from .segmentation import segment

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class MaskSource:
    """Drawn masks, or automatic ones.

    Attributes:
        kind: "true" for drawn masks, "automatic" for masks found by ``segmenter``.
        device: where networks run, the segmenter and others.
        segmenter: the model that finds automatic masks; None for the threshold method.
    """

    kind: MaskKind
    device: torch.device
    segmenter: ModelPackage | None = None

    @property
    def is_automatic(self) -> bool:
        """Whether masks are automatic, not drawn."""
        return self.kind == "automatic"

    def find(self, ct: sitk.Image, inside_skull: Mask) -> Mask:
        """The automatic mask in a CT (HU), on the grid of both; empty if there is no hematoma."""
        return segment(ct, inside_skull, self.segmenter, self.device)
