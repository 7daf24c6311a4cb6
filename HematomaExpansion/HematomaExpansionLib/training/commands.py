"""The commands ``hematoma train`` and ``hematoma evaluate``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..command_options import Commands, add_device, find_segmenter
from ..errors import InputError
from ..model_package import find_package


def add_training_commands(commands: Commands) -> None:
    """Add ``train`` and ``evaluate`` to the command line."""
    train = commands.add_parser("train", help="train a model on a cohort")
    train.add_argument("task", choices=["segmentation", "growth"])
    train.add_argument("--cohort", type=Path, required=True, metavar="DIR", help="folder with one folder per case")
    train.add_argument(
        "-o", "--output", type=Path, required=True, metavar="PACKAGE", help="model package to write"
    )
    train.add_argument("--channels", default="16,32,64,128", help="width of the network's levels")
    train.add_argument("--epochs", type=int, default=150, help="at most this many (default: 150)")
    train.add_argument("--patience", type=int, default=10, help="stop after so many epochs without gain")
    train.add_argument("--batch-size", type=int, default=8)
    train.add_argument("--learning-rate", type=float, default=1e-4)
    train.add_argument("--minutes", type=float, help="stop after this time, keeping the best weights")
    train.add_argument("--seed", type=int, default=0)
    train.set_defaults(run=_train)

    evaluate = commands.add_parser("evaluate", help="measure a model on a cohort whose truth is known")
    evaluate.add_argument("task", choices=["segmentation", "growth"])
    evaluate.add_argument(
        "--cohort", type=Path, required=True, metavar="DIR", help="folder with one folder per case"
    )
    evaluate.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="folder for the tables")
    evaluate.add_argument("--model", metavar="NAME|PATH", help="model to measure (default: the shipped one)")
    add_device(evaluate)
    evaluate.set_defaults(run=_evaluate)


def _train(arguments: argparse.Namespace) -> int:
    try:
        channels = tuple(int(width) for width in arguments.channels.split(","))
    except ValueError as error:
        raise InputError("The channels must be whole numbers with commas, such as 16,32,64,128.") from error
    from .fitting import FitOptions
    from .growth_training import train_growth
    from .segmentation_training import train_segmentation

    options = FitOptions(
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        patience=arguments.patience,
        seed=arguments.seed,
        max_minutes=arguments.minutes,
    )
    train = {"segmentation": train_segmentation, "growth": train_growth}[arguments.task]
    package = train(arguments.cohort, arguments.output, channels, options)
    print(json.dumps(package.description.results, indent=2))
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    from .evaluation import (
        GrowthRow,
        SegmentationRow,
        evaluate_growth,
        evaluate_segmentation,
        summarize_growth,
        summarize_segmentation,
        write_rows,
    )

    rows: list[GrowthRow] | list[SegmentationRow]
    if arguments.task == "growth":
        rows = evaluate_growth(arguments.cohort, find_package(arguments.model, "growth"), arguments.device)
        summary = summarize_growth(rows)
    else:
        rows = evaluate_segmentation(arguments.cohort, find_segmenter(arguments.model), arguments.device)
        summary = summarize_segmentation(rows)
    arguments.output.mkdir(parents=True, exist_ok=True)
    write_rows(rows, arguments.output / f"{arguments.task}.csv")
    text = json.dumps(summary, indent=2)
    (arguments.output / f"{arguments.task}.json").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0
