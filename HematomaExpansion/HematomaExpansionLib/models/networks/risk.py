"""Networks that predict expansion.

``forecast.probability_inputs`` makes the inputs of those that look at the scan. Each network returns one logit per
batch element; the two-output network returns a mask logit first.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from monai.networks.blocks import Convolution, UpSample
from torch import Tensor, nn

from ...errors import ModelPackageError


class MarkerLogistic(nn.Module):
    """Logistic regression on named measurements; an unknown one (NaN) counts as the mean.

    Inputs are clipped to three standard deviations so that a single odd measurement cannot decide.
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
    """3D U-Net whose deepest features also predict whether the hematoma expands (Zhong 2021, supplement).

    Each level has two 3×3×3 convolutions with ReLU; below the top level, the first has stride 2. A bridge follows
    at the lowest resolution, then 2×2×2 up-convolutions with skip connections. The classifier on the bridge has
    two 3×3×3 convolutions of the same width, global average pooling and one unit. The input's sides must be
    divisible by ``2 ** (len(channels) - 2)``.

    It has 2,191,698 parameters at the default width: 1,306,577 in the U-Net and 885,121 in the classifier. The
    paper reports 3,802,578 but not how many convolutions a level has, how it upsamples, what a skip carries, or
    whether it normalizes. The missing 1,610,880 equal 3.6 convolutions of 128 channels (442,496 each), so most may
    be in the bridge. But no network of the described widths has the published number, with one to four
    convolutions per level and up to five in the bridge, with or without normalization, upsampling by 2×2×2 or
    3×3×3 convolutions or by interpolation (the nearest, off by 112, has five in the bridge). Ours is the U-Net
    that the paper cites, with two convolutions per level and no normalization, which the paper does not mention.
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
        # Without normalization, default weights would weaken the signal at each layer.
        for module in self.modules():
            if isinstance(module, Convolution):
                nn.init.kaiming_normal_(module.conv.weight, nonlinearity="relu")
                nn.init.zeros_(module.conv.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Tensor (batch, 1, z, y, x) to two logits: for the mask, in that shape, and for expansion, (batch, 1)."""
        skips: list[Tensor] = []
        for block in self.encoder:
            x = block(x)
            skips.append(x)
        skips.pop()  # the bridge has the resolution of the deepest level
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
    """2D network from axial slices (batch, 1, y, x) to an expansion logit for each, (batch, 1).

    ``network`` is ``resnet34``, ``resnet18`` or ``vgg16``, which JPM 12:779, section 2.5, compared; ``channels``
    are the widths of its levels, in the paper 64, 128, 256, 512 (and another 512 for VGG-16).

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
    """VGG-16 (Simonyan 2015, configuration D), which MONAI lacks.

    It has no dropout, whose random draws would depend on where training was interrupted.
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
    """The expansion logit of each batch element, (batch,), from any of these networks."""
    outputs = network(inputs)
    return (outputs[1] if isinstance(outputs, tuple) else outputs).flatten()
