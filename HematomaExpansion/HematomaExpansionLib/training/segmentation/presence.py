"""Fit of the probability that a scan shows a hematoma, on scans with and without one that chose the weights."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ...anatomy.bleeds import Kind
from ...anatomy.hematomas import MIN_ML_OF
from ...anatomy.presence import evidence_of
from ...anatomy.segmentation import bleeds_from, class_probabilities
from ...models.description import PRESENCE_NUMBERS, ModelDescription
from ..data.each_case import prepare_all
from ..data.labelled import read_labelled

_MIN_OF_EACH = 5


def fit_presence(
    cases: Sequence[Path], description: ModelDescription, network: nn.Module
) -> dict[str, float] | None:
    """Coefficients for ``anatomy.presence.presence_of``; None if there are too few scans of either kind.

    A logistic regression. Scans whose hematoma is smaller than those that count are left aside.
    """
    from sklearn.linear_model import LogisticRegression

    rows = prepare_all(partial(_evidence, description, network), cases, "Judging scans")
    judged = [(values, has) for values, has in rows if has is not None]
    evidence, truth = np.array([values for values, _ in judged]), np.array([has for _, has in judged], bool)
    if min(truth.sum(), (~truth).sum()) < _MIN_OF_EACH:
        return None
    model = LogisticRegression(C=1.0).fit(evidence, truth)
    numbers = [model.intercept_[0], *model.coef_[0]]
    return {name: round(float(value), 4) for name, value in zip(PRESENCE_NUMBERS, numbers, strict=True)}


def _evidence(
    description: ModelDescription, network: nn.Module, folder: Path
) -> tuple[tuple[float, float], bool | None]:
    scan = read_labelled(folder)
    probability = class_probabilities(scan.ct, scan.inside_skull, description, network.eval(), torch.device("cpu"))
    found = bleeds_from(probability, scan.inside_skull).hematoma
    true_ml = scan.bleeds.volume_ml(Kind.INTRAPARENCHYMAL) or 0.0
    has = True if true_ml >= MIN_ML_OF[Kind.INTRAPARENCHYMAL] else False if true_ml == 0 else None
    return evidence_of(probability[Kind.INTRAPARENCHYMAL], found), has
