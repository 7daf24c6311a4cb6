"""The training loop shared by all models: Lightning with early stop, best weights, checkpoints and resume."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from monai.data import DataLoader, Dataset, set_track_meta
from torch import Tensor, nn

from ..errors import MissingLibraryError

try:
    import lightning
    from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
    from lightning.pytorch.loggers import CSVLogger
except ImportError as error:
    raise MissingLibraryError("Training needs Lightning: run `pip install hematoma-expansion[train]`.") from error

if TYPE_CHECKING:
    from collections.abc import Callable

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class FitOptions:
    """How long and how fast to train; the same seed on the same machine gives the same weights."""

    epochs: int
    batch_size: int
    learning_rate: float
    patience: int
    seed: int
    max_minutes: float | None = None


class LossModule(lightning.LightningModule):
    """A network with a loss; the validation loss decides which weights are kept."""

    def __init__(
        self, network: nn.Module, loss: Callable[[nn.Module, Batch], dict[str, Tensor]], learning_rate: float
    ) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self._loss = loss
        self._learning_rate = learning_rate

    def training_step(self, batch: Batch, index: int) -> Tensor:
        return self._logged("train", batch)

    def validation_step(self, batch: Batch, index: int) -> Tensor:
        return self._logged("validation", batch)

    def _logged(self, part: str, batch: Batch) -> Tensor:
        terms = self._loss(self.network, batch)
        total = torch.stack(list(terms.values())).sum()
        values = {f"{part}_{name}": value for name, value in terms.items()} | {f"{part}_loss": total}
        size = len(next(iter(batch.values())))
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=size, prog_bar=False)
        self.log("loss", total, on_step=True, on_epoch=False, prog_bar=True, logger=False, batch_size=size)
        return total

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self._learning_rate)


def fit(
    network: nn.Module,
    loss: Callable[[nn.Module, Batch], dict[str, Tensor]],
    training: Dataset,
    validation: Dataset,
    options: FitOptions,
    folder: Path,
) -> dict[str, float]:
    """Train ``network`` in place and leave it with its best weights; returns that epoch's validation terms.

    ``folder`` takes checkpoints and the log (metrics.csv); a run that was killed goes on from its last epoch.
    """
    set_track_meta(False)  # plain tensors: half as slow, and checkpoints hold nothing but numbers
    lightning.seed_everything(options.seed, workers=True, verbose=False)
    module = LossModule(network, loss, options.learning_rate)
    best = ModelCheckpoint(folder, filename="best", monitor="validation_loss", enable_version_counter=False)
    last = ModelCheckpoint(folder, filename="last", every_n_epochs=1, enable_version_counter=False)
    trainer = lightning.Trainer(
        max_epochs=options.epochs,
        max_time=None if options.max_minutes is None else {"minutes": int(options.max_minutes)},
        accelerator="auto",
        devices=1,
        precision="bf16-mixed",
        logger=CSVLogger(folder, name="", version=""),
        callbacks=[best, last, EarlyStopping("validation_loss", patience=options.patience)],
        log_every_n_steps=1,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    generator = torch.Generator().manual_seed(options.seed)
    unseen = DataLoader(validation, batch_size=options.batch_size)
    trainer.fit(
        module,
        DataLoader(training, batch_size=options.batch_size, shuffle=True, generator=generator),
        unseen,
        ckpt_path="last" if (folder / "last.ckpt").exists() else None,
        weights_only=True,
    )
    results = trainer.validate(module, unseen, ckpt_path="best", weights_only=True, verbose=False)[0]
    return {name: round(float(value), 4) for name, value in results.items()}
