"""2D networks for hematoma segmentation, compared in JPM 12:779, section 2.4, here from MONAI.

They take volumes and work slice by slice, so their packages are used like those of 3D networks with patches one
slice high.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ...errors import ModelPackageError


class Slicewise(nn.Module):
    """A 2D network applied to each slice of a volume separately."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Tensor (batch, 1, z, y, x) to the mask logits, of the same shape."""
        batch, _, depth, height, width = x.shape
        outputs = self.network(x.transpose(1, 2).reshape(batch * depth, 1, height, width))
        logits = outputs[-1] if isinstance(outputs, list) else outputs  # U-Net++ returns a list of one
        return logits.reshape(batch, depth, 1, height, width).transpose(1, 2)


def slice_segmentation(network: str, channels: Sequence[int]) -> Slicewise:
    """Segmentation network for axial slices.

    ``network`` is ``attention-unet``, ``unet`` or ``unet++``, with five ``channels``. The sides of a slice must be
    divisible by 16. At the paper's widths, as far as known, the attention U-Net has 31,739,185 parameters
    (published: 34,894,262), the U-Net 18,919,041 (13,404,354) and the U-Net++ 9,118,756 (8,368,872): MONAI's
    versions upsample with learned convolutions and join the levels differently.

    Raises:
        ModelPackageError: the network is not one of these, or does not have five levels.
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
