"""The options of ``hematoma train``, ``adapt`` and ``evaluate``: which there are, and which a task takes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .option_rules import Takes, When, check_options, tasks_taking
from .options import add_cohort, add_device, add_output, add_segmenter, finite

SLICES, TWO_OUTPUT = "slices", "two-output"
PRESETS: dict[str, tuple[str, ...]] = {
    "growth": ("compact", "paper", "affine"),
    "segmentation": ("compact", SLICES),
    "risk": ("compact", TWO_OUTPUT, SLICES),
}
"""Of each task that is trained."""

LOOP = "epochs patience batch_size learning_rate max_minutes devices nodes seed"
"""Options of the training loop (``fitting.FitOptions``)."""

_DEFAULTS: dict[str, Any] = {"preset": "compact", "masks": "true", "device": "auto", "start": (), "rival": ()}

_AUTOMATIC = When("with --masks automatic", lambda given: given.masks == "automatic")
_BOTH = When("with --masks both", lambda given: given.masks == "both")
_COMPACT = When("with --preset compact", lambda given: given.preset == "compact")
_ON_SLICES = When("with --preset slices", lambda given: given.preset == SLICES)
_NETWORK = When("with --preset two-output or slices", lambda given: given.preset in {TWO_OUTPUT, SLICES})
_BY_MASKS = When("with --preset compact or slices", lambda given: given.preset != TWO_OUTPUT)
_FOLDS = When("with --folds", lambda given: given.folds is not None)
_NO_FOLDS = When("without --folds", lambda given: given.folds is None)
_WEIGHTS = When("without --statistics-only", lambda given: not given.statistics_only)

TABLE = (
    Takes("train growth", f"preset masks start members only_expanded channels {LOOP}"),
    Takes("train growth", "segmenter", (_BOTH,)),
    Takes("train segmentation", f"preset channels {LOOP}"),
    Takes("train segmentation", "start heads half_precision", (_COMPACT,)),
    Takes("train segmentation", "painted", (When("with --heads", lambda given: given.heads is not None),)),
    Takes("train segmentation", "network size", (_ON_SLICES,)),
    Takes("train risk", "preset seed"),
    Takes("train risk", "masks", (_BY_MASKS,)),
    Takes("train risk", "segmenter", (_AUTOMATIC,)),
    Takes("train risk", f"size channels {LOOP}", (_NETWORK,)),
    Takes("train risk", "network", (_ON_SLICES,)),
    Takes("train forecast", "patients described_as seed"),
    Takes("evaluate segmentation", "model device"),
    Takes("evaluate growth", "masks folds device"),
    Takes("evaluate growth", "segmenter", (_AUTOMATIC,)),
    Takes("evaluate growth", "model rival", (_NO_FOLDS,)),
    Takes("evaluate growth", f"preset channels {LOOP}", (_FOLDS,)),
    Takes("evaluate markers", "masks device"),
    Takes("evaluate markers", "segmenter", (_AUTOMATIC,)),
    Takes("evaluate risk", "masks folds device"),
    Takes("evaluate risk", "segmenter", (_AUTOMATIC,)),
    Takes("evaluate risk", "model", (_NO_FOLDS,)),
    Takes("evaluate risk", "preset seed", (_FOLDS,)),
    Takes("evaluate risk", f"size channels {LOOP}", (_FOLDS, _NETWORK)),
    Takes("evaluate risk", "network", (_FOLDS, _ON_SLICES)),
    Takes("evaluate forecast", "model rival growth masks folds device"),
    Takes("evaluate forecast", "segmenter", (_AUTOMATIC,)),
    Takes("evaluate forecast", "seed", (_FOLDS,)),
    Takes("adapt", "seed statistics_only"),
    Takes("adapt", f"rank {LOOP}", (_WEIGHTS,)),
)
"""What each command takes for each task, beside the cohort and the output."""

_LOOP_HELP: dict[str, tuple[type | Any, str]] = {
    "epochs": (int, "maximum number of epochs"),
    "patience": (int, "stop after this many epochs without improvement"),
    "batch_size": (int, "patches per batch"),
    "learning_rate": (finite, "learning rate of the optimizer"),
    "max_minutes": (finite, "stop after this many minutes, with the best weights so far"),
    "devices": (int, "number of GPUs, or processes, per machine"),
    "nodes": (int, "number of machines"),
    "seed": (int, "random seed: the same seed on the same machine gives the same weights"),
}


def check(command: str, arguments: argparse.Namespace) -> None:
    """Refuse what ``command``, with its task, does not take, and give the rest its defaults.

    Raises:
        InputError: see ``option_rules.check_options``.
    """
    check_options(TABLE, command, arguments, _DEFAULTS)


def add_train_options(parser: argparse.ArgumentParser) -> None:
    """Those of ``train``."""
    options = _Options(parser, "train")
    parser.add_argument("task", choices=[*PRESETS, "forecast"], help="what the model is for")
    add_cohort(parser, required=False)
    add_output(parser, "PACKAGE", "model package to write")
    options.add(
        "patients",
        "table (CSV) of patients in place of a cohort: expansion (1 or 0), volume_ml, onset_hours, irregular, "
        "blend, gcs",
        type=Path,
        metavar="CSV",
    )
    options.add("described_as", "whose patients these are, in words that follow their number", metavar="TEXT")
    options.add(
        "heads",
        "folder of real head CTs without any blood: learned from as they are, and with bleeds painted into them",
        type=Path,
        metavar="DIR",
    )
    options.add(
        "painted",
        "number of scans with painted bleeds made of each head (default: 10)",
        type=int,
        metavar="N",
    )
    options.add(
        "masks",
        "masks to start from: the cases' own (true, the default), automatic ones (risk only) or "
        "both (growth only)",
        choices=["true", "both", "automatic"],
    )
    options.add(
        "start",
        "start from the weights of this model (fine-tuning), or of the ensemble of several",
        nargs="+",
        metavar="NAME|PATH",
    )
    options.add(
        "members",
        "train N networks from consecutive seeds; the model is the mean of their fields",
        type=int,
        metavar="N",
    )
    options.flag(
        "only_expanded",
        "learn only from the cases that expanded, as in the paper: whether a hematoma expands is the forecast's "
        "question",
    )
    options.flag(
        "half_precision",
        "compute in half precision on a CPU too, as on a GPU: half the time on one that supports bfloat16 "
        "(AVX-512), far more on others",
    )
    options.add_network()
    options.add_loop()
    add_segmenter(parser, options.of("segmenter"))


def add_evaluate_options(parser: argparse.ArgumentParser) -> None:
    """Those of ``evaluate``."""
    options = _Options(parser, "evaluate")
    parser.add_argument(
        "task", choices=["segmentation", "growth", "markers", "risk", "forecast"], help="what to evaluate"
    )
    add_cohort(parser)
    add_output(parser, "DIR", "folder for the tables")
    options.add("model", "model to evaluate (default: the shipped one)", metavar="NAME|PATH")
    options.add(
        "masks",
        "masks to start from, the cases' own or automatic ones (default: true, the cases' own)",
        choices=["true", "automatic"],
    )
    options.add(
        "rival", "another model to compare with; may be given more than once", action="append", metavar="NAME|PATH"
    )
    options.add("growth", "model that tells where blood goes (default: the shipped one)", metavar="NAME|PATH")
    options.add("folds", "train and test anew in K folds, or leave out one case at a time (loo)", metavar="K|loo")
    options.add_network()
    options.add_loop()
    add_segmenter(parser, options.of("segmenter"))
    add_device(parser, default=None)


def add_adapt_options(parser: argparse.ArgumentParser) -> None:
    """Those of ``adapt``, beside model, cohort and output."""
    options = _Options(parser, "adapt")
    options.add(
        "rank", "rank of the adapters (default: 2 on convolutions, 4 in MedSAM's attention)", type=int, metavar="N"
    )
    options.flag(
        "statistics_only",
        "adapt only the batch-norm statistics, which learns no weights and needs no masks or follow-up scans",
    )
    options.add_loop()


class _Options:
    """Adds options of one command, whose help begins with the tasks that take them."""

    def __init__(self, parser: argparse.ArgumentParser, command: str) -> None:
        self._parser, self._command = parser, command

    def of(self, name: str) -> str:
        """The tasks that take an option, for its help; nothing where all do."""
        lines = [line.command.partition(" ") for line in TABLE]
        tasks = list(dict.fromkeys(task for command, _, task in lines if command == self._command))
        taking = tasks_taking(TABLE, self._command, name)
        return "" if taking == tasks else f"{', '.join(taking)}: "

    def add(self, name: str, text: str, **settings: Any) -> None:
        """An option with a value."""
        self._parser.add_argument(f"--{name.replace('_', '-')}", help=f"{self.of(name)}{text}", **settings)

    def flag(self, name: str, text: str) -> None:
        """An option without one."""
        self.add(name, text, action="store_true", default=None)

    def add_network(self) -> None:
        """What a network looks like."""
        presets = "; ".join(
            f"{task}: {', '.join(PRESETS[task])}" for task in tasks_taking(TABLE, self._command, "preset")
        )
        self._parser.add_argument(
            "--preset",
            choices=list(dict.fromkeys(preset for names in PRESETS.values() for preset in names)),
            help=f"{presets} (default: compact, for risk a regression on CT markers)",
        )
        networks = {
            "segmentation": "attention-unet, unet or unet++",
            "risk": "resnet34, resnet18 or vgg16",
        }
        of_slices = "; ".join(
            f"{task}: {networks[task]}" for task in tasks_taking(TABLE, self._command, "network")
        )
        self._parser.add_argument("--network", metavar="NAME", help=f"network for --preset slices ({of_slices})")
        self.add(
            "size",
            "size in voxels of what the network sees, with --preset two-output (X,Y,Z) or slices (X,Y)",
            metavar="X,Y[,Z]",
        )
        self.add("channels", "number of channels of each level of the network", metavar="N,N,…")

    def add_loop(self) -> None:
        """What the training loop takes."""
        for name, (kind, text) in _LOOP_HELP.items():
            self.add(name, f"{text} (default: the preset's)", type=kind, metavar="N")
