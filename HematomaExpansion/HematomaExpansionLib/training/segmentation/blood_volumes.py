"""Right volumes on average: how much likelier all blood must be for the median hematoma to be as large as it is.

A network learns from patches, most of which hold blood, with classes that weigh differently. So its outlines come
out a little too small or too large, all in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from scipy.optimize import brentq
from torch import Tensor, nn

from ...anatomy.bleeds import BLOOD, Kind, class_of_most
from ...scan.grid import Array
from .kinds_evaluation import COUNTS_FROM_ML
from .training import PATCH, SPACING_MM

_FARTHEST = 3.0
"""The largest shift, as a logit."""


def shift_blood(network: nn.Module, samples: Sequence[dict[str, Any]]) -> float:
    """Add to the logits of all blood, in place, what makes the median hematoma as large as it is; return that.

    ``network``: a U-Net whose ``head`` gives the logits of all classes. ``samples``: whole scans on the model
    grid, as ``kinds.prepare_labelled`` makes them, that it has not learned from. Those with less than 1 mL of
    hematoma say nothing; without any others, nothing changes.
    """
    own = int(Kind.INTRAPARENCHYMAL)
    voxel_ml = float(np.prod(SPACING_MM)) / 1000
    counted = [(sample["ct"], int((sample["classes"] == own).sum())) for sample in samples]
    telling = [(ct, count) for ct, count in counted if count * voxel_ml >= COUNTS_FROM_ML]
    if not telling:
        return 0.0
    network.cpu().eval()
    logits = [_logits(network, ct) for ct, _ in telling]
    true = [count for _, count in telling]

    @cache  # the search begins with both ends, which are looked at before
    def median_excess(shift: float) -> float:
        found = [int((class_of_most(_probability(part, shift)) == own).sum()) for part in logits]
        return float(np.median(np.divide(found, true))) - 1.0

    low, high = median_excess(-_FARTHEST), median_excess(_FARTHEST)
    if low > 0 or high < 0:
        shift = -_FARTHEST if low > 0 else _FARTHEST
    else:
        shift = round(float(brentq(median_excess, -_FARTHEST, _FARTHEST, xtol=0.02)), 2)
    bias: Tensor = network.head.bias  # type: ignore[union-attr, assignment]
    with torch.no_grad():
        bias[list(BLOOD)] += shift
    return shift


def _logits(network: nn.Module, ct: Array) -> Array:
    seen = torch.from_numpy(ct.astype(np.float32))[None]
    with torch.inference_mode():
        found = sliding_window_inference(seen, PATCH[::-1], 2, network, overlap=0.25, mode="gaussian")
    return found[0].numpy().astype(np.float16)


def _probability(logits: Array, shift: float) -> Array:
    shifted = torch.from_numpy(logits.astype(np.float32))
    shifted[list(BLOOD)] += shift
    return torch.softmax(shifted, dim=0).numpy()
