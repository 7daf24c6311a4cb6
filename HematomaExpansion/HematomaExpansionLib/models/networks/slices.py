"""2D networks for the hematoma's mask, those that JPM 12:779, section 2.4, compared, by MONAI.

They work on volumes, slice by slice, so that a package of theirs is used like that of a 3D network whose patches
are one slice high.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ...errors import ModelPackageError


class Slicewise(nn.Module):
    """A 2D network applied to each slice of a volume by itself."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Tensor (batch, 1, z, y, x) to the logit of the mask, of the same shape."""
        batch, _, depth, height, width = x.shape
        outputs = self.network(x.transpose(1, 2).reshape(batch * depth, 1, height, width))
        logits = outputs[-1] if isinstance(outputs, list) else outputs  # U-Net++ gives a list of one
        return logits.reshape(batch, depth, 1, height, width).transpose(1, 2)


def slice_segmentation(network: str, channels: Sequence[int]) -> Slicewise:
    """Mask network of axial slices; ``network``: ``attention-unet``, ``unet`` or ``unet++``; five ``channels``.

    Sides of a slice must be divisible by 16. With the paper's widths, as far as known, attention U-Net has
    31,739,185 parameters (published: 34,894,262), U-Net 18,919,041 (13,404,354) and U-Net++ 9,118,756 (8,368,872):
    MONAI's go up by learned convolutions and differ in how the levels are joined.

    Raises:
        ModelPackageError: the network is not one of these, or has not five levels.
    """
    from monai.networks.nets import AttentionUnet, BasicUNet, BasicUNetPlusPlus

    if len(channels) != 5:
        raise ModelPackageError(
            "A mask network of slices has five levels: give five channels, such as 8,16,32,64,128."
        )
    if network == "attention-unet":
        return Slicewise(AttentionUnet(2, 1, 1, channels, strides=(2,) * 4))
    if network not in {"unet", "unet++"}:
        raise ModelPackageError(
            f"The model package asks for a mask network of slices that is unknown here ({network})."
        )
    kind = BasicUNet if network == "unet" else BasicUNetPlusPlus
    return Slicewise(kind(2, 1, 1, (*channels, channels[0]), act="RELU", norm="BATCH"))
