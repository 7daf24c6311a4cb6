"""Builds networks from the names and arguments in model packages."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ModelPackageError
from ..description import BLAST_CT, ENSEMBLE, MARKER_LOGISTIC, MEDSAM, MONAI, NNUNET
from .elsewhere import BlastCT, MonaiNetwork, NNUNet
from .promptable import MedSAM
from .risk import MarkerLogistic, TwoOutputUNet, slice_classifier
from .slices import slice_segmentation
from .unet import affine_regressor, displacement_unet, segmentation_unet


class Ensemble(nn.Module):
    """The mean output of several independently trained networks of one architecture."""

    def __init__(self, member: str, arguments: dict[str, Any], count: int) -> None:
        if member == ENSEMBLE or not 2 <= count <= _MAX_MEMBERS:
            raise ModelPackageError(f"The model package asks for an ensemble of {count} {member} networks.")
        super().__init__()
        self.members = nn.ModuleList(build_network(member, arguments) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        """The mean of the members' outputs for one input."""
        return torch.stack([member(x) for member in self.members]).mean(dim=0)


_MAX_MEMBERS = 16

ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "displacement-unet": displacement_unet,
    "affine-regressor": affine_regressor,
    "segmentation-unet": segmentation_unet,
    "slice-segmentation": slice_segmentation,
    MARKER_LOGISTIC: MarkerLogistic,
    "two-output-unet": TwoOutputUNet,
    "slice-classifier": slice_classifier,
    BLAST_CT: BlastCT,
    NNUNET: NNUNet,
    MONAI: MonaiNetwork,
    MEDSAM: MedSAM,
    ENSEMBLE: Ensemble,
}


def members_of(network: nn.Module) -> list[nn.Module]:
    """The networks of an ensemble, or the one network itself."""
    return list(network.members) if isinstance(network, Ensemble) else [network]


def own_weights(network: nn.Module) -> dict[str, Tensor]:
    """Each weight of a network once, by its first name: networks made elsewhere hold some layers under several."""
    saved = network.state_dict().keys()
    named = itertools.chain(network.named_parameters(), network.named_buffers())
    return {name: tensor.detach() for name, tensor in named if name in saved}


def build_network(architecture: str, arguments: dict[str, Any]) -> nn.Module:
    """Build a network from its name and arguments in a model package.

    Raises:
        ModelPackageError: this version does not know the name or its arguments.
    """
    try:
        return ARCHITECTURES[architecture](**arguments)
    except (LookupError, TypeError) as error:
        raise ModelPackageError(
            f"The model package asks for a network that this version does not know ({architecture}): "
            "update HematomaExpansion, or choose another model."
        ) from error
