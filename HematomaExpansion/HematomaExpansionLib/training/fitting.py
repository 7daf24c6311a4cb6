"""The training loop: Lightning with best weights kept, checkpoints, resuming and a log.

All randomness depends only on seed, epoch and position, so a run that was killed and resumed sees the same patches
as an uninterrupted one.
"""

from __future__ import annotations

import json
import math
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from monai.data import DataLoader, set_track_meta
from monai.transforms import Compose
from torch import Tensor, nn
from torch.utils.data import Dataset, DistributedSampler

from ..batch.workers import available_cores
from ..errors import InputError, MissingLibraryError, ModelPackageError
from ..models.description import ENSEMBLE
from ..models.networks.build import build_network, members_of
from ..models.networks.described import DescribedNetwork, ensemble_of
from ..models.package import ModelPackage
from ..stopping import Stopped

try:
    import lightning
    from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
    from lightning.pytorch.loggers import CSVLogger
except ImportError as error:
    raise MissingLibraryError("Training needs Lightning: run `pip install hematoma-expansion[train]`.") from error

Batch = dict[str, Tensor]

_MIN_VALUES = {"epochs": 0, "batch_size": 1, "patience": 1, "seed": 0, "devices": 1, "nodes": 1}
_MAX_SEED = 2**32 - 1
_ENDED_FILE = "ended.json"


@dataclass(frozen=True)
class FitOptions:
    """How long and how fast to train; the same seed on the same machine gives the same weights.

    ``annealed``: the learning rate falls to zero along a cosine over all epochs; otherwise it is constant except
    for a drop to a tenth at each epoch in ``milestones``. ``momentum``: that of stochastic gradient descent; None
    for Adam. ``half_precision``: on a CPU as well, where a 3D network may learn in half the time.

    Raises:
        InputError: a value is out of range.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    patience: int
    seed: int
    annealed: bool = False
    milestones: tuple[int, ...] = ()
    momentum: float | None = None
    weight_decay: float = 0.0
    max_minutes: float | None = None
    devices: int = 1
    nodes: int = 1
    half_precision: bool = False

    def __post_init__(self) -> None:
        for name, min_value in _MIN_VALUES.items():
            if getattr(self, name) < min_value:
                raise InputError(f"--{name.replace('_', '-')} must be at least {min_value}.")
        if self.seed > _MAX_SEED:
            raise InputError(f"--seed must be at most {_MAX_SEED}.")
        for name in ("learning_rate", "max_minutes"):
            value = getattr(self, name)
            if value is not None and not (0 < value < math.inf):  # also false for NaN
                raise InputError(f"--{name.replace('_', '-')} must be a number above 0.")


class Patches(Dataset[Batch]):
    """Patches drawn from samples, ``per_sample`` from each, by a transform that holds all randomness."""

    def __init__(
        self, samples: Sequence[dict[str, Any]], transform: Compose, seed: int, per_sample: int = 1
    ) -> None:
        self._samples, self._transform, self._seed, self._per_sample = samples, transform, seed, per_sample

    def __len__(self) -> int:
        return len(self._samples) * self._per_sample

    def __getitem__(self, index: int) -> Batch:
        """Patch ``index % len`` as drawn in epoch ``index // len``."""
        epoch, position = divmod(index, len(self))
        state = np.random.SeedSequence([self._seed, epoch, position]).generate_state(1)
        self._transform.set_random_state(int(state[0]))
        patch = self._transform(self._samples[position % len(self._samples)])
        return patch[0] if isinstance(patch, list) else patch  # MONAI's crops by label return lists


@dataclass(frozen=True)
class PatchPairs:
    """Patches to learn from, and patches to choose the weights on."""

    training: Patches
    validation: Patches

    @classmethod
    def of(
        cls,
        samples: tuple[Sequence[dict[str, Any]], Sequence[dict[str, Any]]],
        transform: Callable[..., Compose],
        seed: int,
        per_sample: int,
        unseen_per_sample: int | None = None,
    ) -> PatchPairs:
        """Patches of training and validation samples, ``per_sample`` from each.

        ``transform(vary=True)`` draws the training patches, ``transform(vary=False)`` those for validation.
        """
        learned, unseen = samples
        unseen_count = per_sample if unseen_per_sample is None else unseen_per_sample
        return cls(
            Patches(learned, transform(vary=True), seed, per_sample),
            Patches(unseen, transform(vary=False), seed, unseen_count),
        )


class _EpochSampler(DistributedSampler[Any]):
    """A new order in each epoch, with indices that encode the epoch; Lightning calls ``set_epoch``."""

    def __iter__(self) -> Iterator[int]:
        size = len(self.dataset)  # type: ignore[arg-type]
        return (self.epoch * size + index for index in super().__iter__())


class _Patients(lightning.LightningDataModule):
    """Training and validation patches, divided among the processes of a run on several GPUs."""

    def __init__(self, patches: PatchPairs, options: FitOptions) -> None:
        super().__init__()
        self._patches, self._options = patches, options

    def _loader(self, patches: Patches, *, shuffle: bool) -> DataLoader:
        assert self.trainer is not None
        replicas, rank = self.trainer.world_size, self.trainer.global_rank
        if shuffle:
            sampler: DistributedSampler[Any] = _EpochSampler(patches, replicas, rank, seed=self._options.seed)
        else:
            sampler = DistributedSampler(patches, replicas, rank, shuffle=False)
        workers = _patch_workers()
        return DataLoader(
            patches,
            batch_size=self._options.batch_size,
            sampler=sampler,
            num_workers=workers,
            multiprocessing_context="fork" if workers else None,
            persistent_workers=workers > 0,
        )

    def train_dataloader(self) -> DataLoader:
        return self._loader(self._patches.training, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return self._loader(self._patches.validation, shuffle=False)


class LossModule(lightning.LightningModule):
    """A network with a loss; the validation loss decides which weights are kept."""

    def __init__(
        self, network: nn.Module, loss: Callable[[nn.Module, Batch], dict[str, Tensor]], options: FitOptions
    ) -> None:
        super().__init__()
        self.network = network.to(memory_format=_memory_format(network))  # type: ignore[call-overload]
        self._loss = loss
        self._options = options

    def training_step(self, batch: Batch, index: int) -> Tensor:
        return self._logged("train", batch)

    def validation_step(self, batch: Batch, index: int) -> Tensor:
        return self._logged("validation", batch)

    def _logged(self, part: str, batch: Batch) -> Tensor:
        terms = self._loss(self.network, batch)
        total = torch.stack(list(terms.values())).sum()
        values = {f"{part}_{name}_loss": value for name, value in terms.items()} | {f"{part}_loss": total}
        size = len(next(iter(batch.values())))
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=size, prog_bar=False, sync_dist=True)
        self.log("loss", total, on_step=True, on_epoch=False, prog_bar=True, logger=False, batch_size=size)
        return total

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Leave out a step whose gradient is not finite: in half precision on a CPU, torch sometimes returns NaN
        for 3D convolutions.
        """
        if self._options.half_precision:
            gradients = [weight.grad for weight in self.parameters() if weight.grad is not None]
            usable = all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
            if not usable:
                optimizer.zero_grad(set_to_none=True)
            self.log("left_out_steps", float(not usable), on_step=False, on_epoch=True, reduce_fx="sum")

    def configure_optimizers(self) -> Any:
        options, parameters = self._options, self.parameters()
        optimizer: torch.optim.Optimizer
        if options.momentum is None:
            optimizer = torch.optim.Adam(parameters, options.learning_rate, weight_decay=options.weight_decay)
        else:
            optimizer = torch.optim.SGD(
                parameters, options.learning_rate, options.momentum, weight_decay=options.weight_decay
            )
        if options.annealed:
            return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs)]
        return [optimizer], [torch.optim.lr_scheduler.MultiStepLR(optimizer, options.milestones)]


def _has_volumes(network: nn.Module) -> bool:
    return any(isinstance(module, nn.Conv3d) for module in network.modules())


def _memory_format(network: nn.Module) -> torch.memory_format:
    """The faster memory format for 3D convolutions; with narrow 2D ones, torch on a CPU corrupts memory in it."""
    return torch.channels_last_3d if _has_volumes(network) else torch.preserve_format


def initial_network(
    architecture: str, arguments: dict[str, Any], start: Sequence[ModelPackage], seed: int
) -> DescribedNetwork:
    """A network with random weights from this seed, or with those of ``start``; several models form an ensemble.

    Raises:
        InputError: no network can be built with these arguments.
        ModelPackageError: ``start`` holds another network.
    """
    torch.manual_seed(seed)
    if not start:
        try:
            return DescribedNetwork(build_network(architecture, arguments), architecture, arguments)
        except (ValueError, RuntimeError, ArithmeticError, IndexError) as error:
            raise InputError(
                "No network can be built with these channels: give more of them, or leave out --channels."
            ) from error
    members: list[nn.Module] = []
    for package in start:
        loaded = package.load().train()
        name, its_arguments = package.description.architecture, package.description.arguments
        if name == ENSEMBLE:
            name, its_arguments = its_arguments["member"], its_arguments["arguments"]
        if (name, its_arguments) != (architecture, arguments):
            raise ModelPackageError(
                f"Training cannot begin from model {package.description.name!r}, which is another network "
                f"({name}, {its_arguments}): train with its preset and channels."
            )
        members += members_of(loaded)
    return ensemble_of(members, architecture, arguments)


def _patch_workers() -> int:
    """Processes that draw patches while the network learns from earlier ones: as many as cores beside a GPU. A CPU
    is busy with the network, and where a process cannot be forked, each would hold its own copy of all samples.
    """
    if torch.cuda.is_available() and "fork" in multiprocessing.get_all_start_methods():
        return available_cores()
    return 0


def _precision(options: FitOptions) -> Literal["bf16-mixed", "32-true"]:
    """Half precision on a GPU, elsewhere on demand only: narrow 2D networks do not learn in it on a CPU, and CPUs
    that do not support it take a hundred times as long.
    """
    return "bf16-mixed" if torch.cuda.is_available() or options.half_precision else "32-true"


def _has_ended(ended: Path, options: FitOptions) -> bool:
    """Whether a run with these options has ended, early or not; if resumed, it would train for longer."""
    return ended.is_file() and ended.read_text(encoding="utf-8") == _as_json(options)


def _as_json(options: FitOptions) -> str:
    return json.dumps(asdict(options), indent=2) + "\n"


def fit(
    network: nn.Module,
    loss: Callable[[nn.Module, Batch], dict[str, Tensor]],
    patches: PatchPairs,
    options: FitOptions,
    folder: Path,
) -> dict[str, float]:
    """Train ``network`` in place and leave it with its best weights; return that epoch's validation losses: each
    term as ``validation_<term>_loss``, which for Dice is one minus the Dice, and their sum as ``validation_loss``.

    ``folder`` receives checkpoints and, for each start, a log (metrics.csv). A killed run resumes from its last
    epoch; a finished one returns its best weights. ``runs.begin_run`` has made sure that the checkpoints belong to
    the same run. With no epochs, the network is only validated.

    Raises:
        InputError: the loss did not stay finite.
    """
    set_track_meta(False)  # plain tensors: twice as fast, and checkpoints hold nothing but numbers
    lightning.seed_everything(options.seed, workers=True, verbose=False)
    module = LossModule(network, loss, options)
    best = ModelCheckpoint(folder, filename="best", monitor="validation_loss", enable_version_counter=False)
    last = ModelCheckpoint(folder, filename="last", every_n_epochs=1, enable_version_counter=False)
    trainer = lightning.Trainer(
        max_epochs=options.epochs,
        max_time=None if options.max_minutes is None else timedelta(minutes=options.max_minutes),
        accelerator="auto",
        devices=options.devices,
        num_nodes=options.nodes,
        use_distributed_sampler=False,
        precision=_precision(options),
        logger=CSVLogger(folder, name="log"),
        callbacks=[best, last, EarlyStopping("validation_loss", patience=options.patience)],
        log_every_n_steps=1,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    patients = _Patients(patches, options)
    best_epoch, ended = None, folder / _ENDED_FILE
    if options.epochs > 0 and not _has_ended(ended, options):
        checkpoint = "last" if (folder / "last.ckpt").exists() else None
        try:
            trainer.fit(module, patients, ckpt_path=checkpoint, weights_only=True)
        except Stopped:
            raise Stopped("The same command resumes after the last epoch.") from None
        ended.write_text(_as_json(options), encoding="utf-8")
    if options.epochs > 0:
        best_epoch = str(folder / "best.ckpt")
    results = trainer.validate(module, patients, ckpt_path=best_epoch, weights_only=True, verbose=False)[0]
    if not all(math.isfinite(value) for value in results.values()):
        raise InputError("The loss became infinite, so nothing was learned: choose a smaller --learning-rate.")
    return {name: round(float(value), 4) for name, value in results.items()}
