"""Networks that read the probability of expansion off the scan itself.

What their inputs are is in ``forecast.probability_inputs``. Each gives a logit for each element of the batch; the
two-output network gives a mask before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from monai.networks.blocks import Convolution, UpSample
from torch import Tensor, nn

from ...errors import ModelPackageError


class MarkerLogistic(nn.Module):
    """Logistic regression on named measurements; one that is not known (NaN) counts as the mean.

    Inputs are bounded at three standard deviations, or a single odd measurement would decide.
    """

    def __init__(self, features: Sequence[str]) -> None:
        super().__init__()
        self.mean: Tensor
        self.deviation: Tensor
        self.register_buffer("mean", torch.zeros(len(features)))
        self.register_buffer("deviation", torch.ones(len(features)))
        self.linear = nn.Linear(len(features), 1)

    def standardized(self, x: Tensor) -> Tensor:
        """Tensor (batch, features) in standard deviations from the mean."""
        return torch.nan_to_num((x - self.mean) / self.deviation).clamp(-3, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Tensor (batch, features) to the logit, (batch,)."""
        return self.linear(self.standardized(x))[:, 0]


_RESNET_BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3)}
_VGG16_CONVOLUTIONS = (2, 2, 3, 3, 3)


class TwoOutputUNet(nn.Module):
    """3D U-Net whose deepest features also tell whether the hematoma expands (Zhong 2021, supplement).

    Per level two 3×3×3 convolutions with ReLU, the first of which goes down with stride 2; a bridge at the lowest
    resolution; 2×2×2 up-convolutions and skips. On the bridge two 3×3×3 convolutions of its width, global average
    pooling and one unit. Sides of the input must be divisible by ``2 ** (len(channels) - 2)``.

    2,191,698 parameters with the default width: 1,306,577 of the U-Net, 885,121 of the classifier. The paper says
    3,802,578 and leaves open how many convolutions a level has, how it goes up, what a skip carries, and whether
    it normalizes. The 1,610,880 more are as many as 3.6 convolutions of 128 channels hold (442,496 each), so the
    bridge is where most of them may lie. But no network of the described widths with one to four convolutions per
    level and up to five on the bridge, with or without normalization, going up by 2×2×2 or 3×3×3 or by
    interpolation, has the published number (the nearest, 112 off, has five on the bridge). Ours is the U-Net that
    the paper cites, with two per level and no normalization, of which it says nothing.
    """

    def __init__(self, channels: Sequence[int] = (16, 32, 64, 128), in_channels: int = 1) -> None:
        super().__init__()
        *levels, bridge = channels
        widths = list(pairwise([in_channels, *levels]))
        self.encoder = nn.ModuleList(
            _two_convolutions(a, b, first_stride=1 if level == 0 else 2) for level, (a, b) in enumerate(widths)
        )
        self.bridge = _two_convolutions(levels[-1], bridge)
        deep_to_shallow = list(pairwise(reversed(channels[1:])))
        skips = list(reversed(levels[:-1]))
        self.upsample = nn.ModuleList(UpSample(3, a, b, scale_factor=2) for a, b in deep_to_shallow)
        self.decoder = nn.ModuleList(
            _two_convolutions(b + skip, b) for (_, b), skip in zip(deep_to_shallow, skips, strict=True)
        )
        self.mask_head = nn.Conv3d(channels[1], 1, kernel_size=1)
        self.classifier = nn.Sequential(
            _two_convolutions(bridge, bridge), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(bridge, 1)
        )
        for module in self.modules():
            if isinstance(
                module, Convolution
            ):  # as nothing normalizes, or each layer would weaken what it is given
                nn.init.kaiming_normal_(module.conv.weight, nonlinearity="relu")
                nn.init.zeros_(module.conv.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Tensor (batch, 1, z, y, x) to two logits: of the mask, in that shape, and of expansion, (batch, 1)."""
        skips: list[Tensor] = []
        for block in self.encoder:
            x = block(x)
            skips.append(x)
        skips.pop()  # the bridge lies at the resolution of the deepest level
        bridge = x = self.bridge(x)
        for upsample, block in zip(self.upsample, self.decoder, strict=True):
            x = block(torch.cat([skips.pop(), upsample(x)], dim=1))
        return self.mask_head(x), self.classifier(bridge)


def _two_convolutions(inputs: int, outputs: int, first_stride: int = 1) -> nn.Sequential:
    first, second = (
        Convolution(3, width, outputs, strides=stride, act="RELU", norm=None, dropout=None)
        for width, stride in ((inputs, first_stride), (outputs, 1))
    )
    return nn.Sequential(first, second)


def slice_classifier(network: str, channels: Sequence[int]) -> nn.Module:
    """2D network from axial slices (batch, 1, y, x) to the logit of expansion of each, (batch, 1).

    ``network``: ``resnet34``, ``resnet18`` or ``vgg16``, which JPM 12:779, 2.5, compared; ``channels``:
    the widths of its levels, as published 64, 128, 256, 512 (and for VGG-16 512 again).

    Raises:
        ModelPackageError: the network is not one of these.
    """
    from monai.networks.nets.resnet import ResNet

    if network == "vgg16":
        return _vgg16(channels)
    if network not in _RESNET_BLOCKS:
        raise ModelPackageError(
            f"The model package asks for a classifier of slices that is unknown here ({network})."
        )
    return ResNet(
        "basic",
        list(_RESNET_BLOCKS[network]),
        list(channels),
        spatial_dims=2,
        n_input_channels=1,
        conv1_t_stride=2,
        num_classes=1,
        bias_downsample=False,
    )


def _vgg16(channels: Sequence[int]) -> nn.Sequential:
    """VGG-16 (Simonyan 2015, configuration D), which MONAI lacks, without its dropout: what that draws would
    depend on where a training was interrupted.
    """
    layers: list[nn.Module] = []
    for (inputs, outputs), count in zip(pairwise([1, *channels]), _VGG16_CONVOLUTIONS, strict=True):
        for k in range(count):
            layers.append(
                Convolution(2, inputs if k == 0 else outputs, outputs, act="RELU", norm=None, dropout=None)
            )
        layers.append(nn.MaxPool2d(2))
    hidden = 8 * channels[-1]
    head = [
        nn.AdaptiveAvgPool2d(7),
        nn.Flatten(),
        nn.Linear(49 * channels[-1], hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, 1),
    ]
    return nn.Sequential(*layers, *head)


def expansion_logits(network: nn.Module, inputs: Tensor) -> Tensor:
    """The logit of expansion for each element of a batch, (batch,), by any of these networks."""
    outputs = network(inputs)
    return (outputs[1] if isinstance(outputs, tuple) else outputs).flatten()
