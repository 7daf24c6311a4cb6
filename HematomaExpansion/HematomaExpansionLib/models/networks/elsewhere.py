"""Networks made and trained elsewhere, as this software calls them.

Each takes the CT as its package's window scales it to 0 and 1, (batch, 1, z, y, x), and returns the logits of the
classes that its ``labels`` name, in ascending order (``description.classes_of``), of the same size.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import MissingLibraryError, ModelPackageError
from ..description import CLASS_NAMES, classes_of


class BlastCT(nn.Module):
    """DeepMedic as BLAST-CT uses it (Monteiro 2020): three paths of convolutions without padding, of 1, 3, 5 mm.

    The input's sides must be divisible by ``STEP``.

    Raises:
        MissingLibraryError: the library blast-ct is not installed.
    """

    STEP, MARGIN = 15, 40
    """Voxels after which the sampling of its coarse paths repeats, and voxels that it sees beyond each side."""

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__()
        try:
            from blast_ct.models.deepmedic import DeepMedic
        except ImportError as error:
            raise MissingLibraryError(
                "A model of BLAST-CT needs its library: run `pip install hematoma-expansion[blast]`, in Slicer's "
                "Python if you use it there."
            ) from error
        self.deepmedic = DeepMedic(1, len(labels))
        self.labels = tuple(labels)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a patch; beyond its sides, the outermost voxels are repeated."""
        return self.of_middle(nn.functional.pad(x, [self.MARGIN] * 6, mode="replicate"))

    def of_middle(self, x: Tensor) -> Tensor:
        """Logits of all of an input but the ``MARGIN`` on each side."""
        logits, _ = self.deepmedic(2 * x - 1)
        return by_class(logits, self.labels)


class NNUNet(nn.Module):
    """A 3D network that nnU-Net (version 2; Isensee 2021) trained on CT, as its plans describe it.

    Args:
        plans: nnU-Net's plans, with the one configuration that was trained.
        dataset: nnU-Net's description of its data set, with its labels.
        labels: the name of each of its outputs, in the order of nnU-Net's labels.
        mirroring: the axes (0 to 2) along which nnU-Net mirrors a scan and averages.

    Raises:
        MissingLibraryError: the library nnunetv2 is not installed.
        ModelPackageError: the plans ask for a network that this software does not run.
    """

    def __init__(
        self,
        plans: Mapping[str, Any],
        dataset: Mapping[str, Any],
        labels: Sequence[str],
        mirroring: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        try:
            from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
            from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
        except ImportError as error:
            raise MissingLibraryError(
                "A model of nnU-Net needs its library: run `pip install hematoma-expansion[nnunet]`, in Slicer's "
                "Python if you use it there."
            ) from error
        self.plans = PlansManager(deepcopy(dict(plans)))
        self.configuration = self.plans.get_configuration(next(iter(plans["configurations"])))
        _check_architecture(self.configuration.configuration["architecture"])
        self.dataset, self.labels = dict(dataset), tuple(labels)
        self.mirroring = None if mirroring is None else tuple(mirroring)
        self.unet = get_network_from_plans(
            self.configuration.network_arch_class_name,
            self.configuration.network_arch_init_kwargs,
            self.configuration.network_arch_init_kwargs_req_import,
            1,
            len(labels),
            allow_init=True,
            deep_supervision=False,
        )
        intensities = plans["foreground_intensity_properties_per_channel"]["0"]
        self.low, self.high = intensities["percentile_00_5"], intensities["percentile_99_5"]
        self.mean, self.deviation = intensities["mean"], max(intensities["std"], 1e-8)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a patch on the grid of nnU-Net's plans."""
        normalized = (x * (self.high - self.low) + self.low - self.mean) / self.deviation
        there = [0, 1, *(2 + axis for axis in self.plans.transpose_forward)]
        back = [0, 1, *(2 + axis for axis in self.plans.transpose_backward)]
        return by_class(self.unet(normalized.permute(there)).permute(back), self.labels)


class MonaiNetwork(nn.Module):
    """A SegResNet or DynUNet of MONAI that sees a scan's axes (x, y, z) in another direction than ours.

    Args:
        network: one of ``MONAI_NETWORKS``.
        network_arguments: what MONAI builds it with.
        labels: the name of each of its outputs.
        scaled: the values to which it expects the two ends of the window.
        axes: the direction of its axes, such as RAS.

    Raises:
        ModelPackageError: the network is another, or its axes are in another order.
    """

    def __init__(
        self,
        network: str,
        network_arguments: Mapping[str, Any],
        labels: Sequence[str],
        scaled: Sequence[float] = (0.0, 1.0),
        axes: str = "RAS",
    ) -> None:
        super().__init__()
        if network not in MONAI_NETWORKS or any(end not in pair for end, pair in zip(axes, _ENDS, strict=True)):
            raise ModelPackageError(
                f"This software does not run the MONAI network asked for ({network[:40]}, {axes[:3]}): choose a "
                f"{' or '.join(MONAI_NETWORKS)} whose axes run along left, posterior and superior."
            )
        from monai.networks import nets

        self.network = getattr(nets, network)(**network_arguments)
        self.labels, (self.low, self.high) = tuple(labels), scaled
        self.turned = [2 + axis for axis, (end, ours) in enumerate(zip(axes, "LPS", strict=True)) if end != ours]

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a patch."""
        theirs = torch.flip((x * (self.high - self.low) + self.low).permute(0, 1, 4, 3, 2), self.turned)
        ours = torch.flip(self.network(theirs), self.turned).permute(0, 1, 4, 3, 2)
        return by_class(ours, self.labels)


MONAI_NETWORKS = ("SegResNet", "DynUNet")
_ENDS = ("LR", "AP", "SI")

_NETWORKS = {"PlainConvUNet", "ResidualEncoderUNet", "ResidualUNet"}
_LAYERS = re.compile(
    r"torch\.nn(\.modules\.[a-z]+)?\.(Conv3d|InstanceNorm3d|BatchNorm3d|LeakyReLU|ReLU|Dropout3d)"
)


def _check_architecture(architecture: Mapping[str, Any]) -> None:
    """Plans name the Python objects that a network is made of; none but layers of networks is looked up."""
    module, _, name = str(architecture["network_class_name"]).rpartition(".")
    given = architecture["arch_kwargs"]
    known = module.startswith("dynamic_network_architectures.architectures") and name in _NETWORKS
    looked_up = [given.get(key) for key in architecture["_kw_requires_import"]]
    if not known or not all(layer is None or _LAYERS.fullmatch(str(layer)) for layer in looked_up):
        raise ModelPackageError(
            f"nnU-Net's plans ask for a network that this software does not run ({name[:40]}): "
            f"choose a 3D model of {', '.join(sorted(_NETWORKS))}."
        )


def by_class(logits: Tensor, labels: Sequence[str]) -> Tensor:
    """The logits of outputs of these names, (batch, output, z, y, x), as logits of the classes they belong to."""
    numbers = [CLASS_NAMES[name] for name in labels]
    merged = []
    for number in classes_of(labels):
        own = logits[:, [k for k, of_output in enumerate(numbers) if of_output == number]]
        merged.append(torch.logsumexp(own, dim=1, keepdim=True))
    return torch.cat(merged, dim=1)
