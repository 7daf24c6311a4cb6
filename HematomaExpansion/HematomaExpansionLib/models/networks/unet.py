"""The U-Nets, assembled from MONAI's blocks.

Tensors are (batch, channel, z, y, x) on a model grid; ``growth.field`` and ``anatomy.segmentation`` describe the
channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from monai.networks.blocks import ChannelSELayer, Convolution, UpSample
from torch import Tensor, nn

from ...errors import ModelPackageError
from ..description import CLASSES

_RARE = -4.0
"""Logit of a class that few voxels belong to."""


class UNet(nn.Module):
    """3D U-Net: per level two 3×3×3 convolutions with ReLU, 2×2×2 max pooling, 2×2×2 up-convolution, skips.

    The input's sides must be divisible by ``2 ** (len(channels) - 1)``.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int],
        *,
        norm: str | None = None,
        squeeze_and_excitation: bool = False,
    ) -> None:
        super().__init__()

        def block(inputs: int, outputs: int) -> nn.Sequential:
            layers = _two_convolutions(inputs, outputs, norm)
            if squeeze_and_excitation:
                layers.append(ChannelSELayer(3, outputs, r=4))
            return nn.Sequential(*layers)

        self.encoder = nn.ModuleList(block(a, b) for a, b in pairwise([in_channels, *channels]))
        deep_to_shallow = list(pairwise(reversed(channels)))
        self.upsample = nn.ModuleList(UpSample(3, a, b, scale_factor=2) for a, b in deep_to_shallow)
        self.decoder = nn.ModuleList(block(2 * b, b) for _, b in deep_to_shallow)
        self.pool = nn.MaxPool3d(2)
        self.head = nn.Conv3d(channels[0], out_channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Tensor (batch, in_channels, z, y, x) to (batch, out_channels, z, y, x), no final activation."""
        skips: list[Tensor] = []
        for level, block in enumerate(self.encoder):
            x = block(x if level == 0 else self.pool(x))
            skips.append(x)
        skips.pop()
        for upsample, block in zip(self.upsample, self.decoder, strict=True):
            x = block(torch.cat([skips.pop(), upsample(x)], dim=1))
        return self.head(x)


def _two_convolutions(inputs: int, outputs: int, norm: str | None) -> list[nn.Module]:
    return [
        Convolution(3, width, outputs, act="RELU", norm=norm, dropout=None, bias=norm is None)
        for width in (inputs, outputs)
    ]


class AffineRegressor(nn.Module):
    """Growth as one 3×4 matrix for a whole patch, applied as a field, as in some published code.

    Used only for comparison in evaluations. It cannot grow a hematoma on one side only.
    """

    def __init__(self, in_channels: int, channels: Sequence[int], norm: str | None = None) -> None:
        super().__init__()
        levels: list[nn.Module] = []
        for inputs, outputs in pairwise([in_channels, *channels]):
            levels += [*_two_convolutions(inputs, outputs, norm), nn.MaxPool3d(2)]
        self.encoder = nn.Sequential(*levels)
        self.head = nn.Linear(channels[-1], 12)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Tensor (batch, in_channels, z, y, x) to the affine displacement in voxels, (batch, 3, z, y, x)."""
        matrix = self.head(self.encoder(x).mean(dim=(2, 3, 4))).view(-1, 3, 4)
        axes = [torch.arange(n, device=x.device, dtype=matrix.dtype) - (n - 1) / 2 for n in x.shape[2:]]
        # In units of half a patch, so that both parts of the matrix learn at a similar pace.
        offset = torch.stack(torch.meshgrid(*axes, indexing="ij")) / (max(x.shape[2:]) / 2)
        return torch.einsum("bij,jzyx->bizyx", matrix[..., :3], offset) + matrix[..., 3, None, None, None]


def displacement_unet(
    channels: Sequence[int] = (64, 128, 256, 512), in_channels: int = 2, norm: str | None = None
) -> UNet:
    """The growth network: CT and hematoma mask in, three components of a field out.

    With the default width and no normalization, it is the network of Abramova 2024, section 2.4 (22,395,651
    parameters). It starts near the identity, with an almost zero field, since an untrained prediction should be
    "no growth".
    """
    network = UNet(in_channels, 3, channels, norm=norm)
    with torch.no_grad():
        network.head.weight.normal_(std=1e-3)
        network.head.bias.zero_()  # type: ignore[union-attr]
    return network


def affine_regressor(
    channels: Sequence[int] = (16, 32, 64, 128), in_channels: int = 2, norm: str | None = None
) -> AffineRegressor:
    """The comparison network that reduces growth to an affine map; it starts at the identity."""
    return AffineRegressor(in_channels, channels, norm)


def segmentation_unet(
    channels: Sequence[int] = (32, 64, 128, 256), in_channels: int = 1, classes: int = 1
) -> UNet:
    """The segmentation network: 3D U-Net with squeeze-and-excitation blocks (after Abramova 2021).

    One logit for the hematoma, or one for each of all ``CLASSES``.

    Raises:
        ModelPackageError: another number of classes.
    """
    if classes not in {1, CLASSES}:
        raise ModelPackageError(
            f"The model package asks for a segmentation of {classes} classes, which this version does not know: "
            "update HematomaExpansion, or choose another model."
        )
    network = UNet(in_channels, classes, channels, norm="BATCH", squeeze_and_excitation=True)
    bias: Tensor = network.head.bias  # type: ignore[assignment]
    with torch.no_grad():  # start at the small share of blood in a patch, which takes long to learn
        bias[min(1, classes - 1) :] = _RARE if classes == 1 else _RARE / 2
    return network
