"""Where the hematoma's mask comes from when many scans are worked on in the same way."""

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
    """Masks that somebody drew, or automatic ones.

    Attributes:
        kind: "true" for masks that were drawn, "automatic" for masks found by ``segmenter``.
        device: on which networks compute, those that find masks and others.
        segmenter: the model that finds automatic masks; None for the threshold method.
    """

    kind: MaskKind
    device: torch.device
    segmenter: ModelPackage | None = None

    @property
    def is_automatic(self) -> bool:
        """Whether masks are found, not drawn."""
        return self.kind == "automatic"

    def find(self, ct: sitk.Image, inside_skull: Mask) -> Mask:
        """The automatic mask in a CT (HU), on the grid of both; empty where there is no hematoma."""
        return segment(ct, inside_skull, self.segmenter, self.device)
