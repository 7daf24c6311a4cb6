"""The commands ``hematoma segment`` and ``measure``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..progress import Stages
from .options import (
    Commands,
    add_box,
    add_command,
    add_device,
    add_input,
    add_label,
    add_output,
    add_scan,
    add_segmenter,
    find_segmenter,
    given_box,
    reporting,
)


def add_commands(commands: Commands) -> None:
    """Add both to the command line."""
    _add_segment(commands)
    _add_measure(commands)


def _add_segment(commands: Commands) -> None:
    parser = add_command(commands, "segment", "find the hematoma and write its mask")
    add_scan(parser)
    add_output(parser, "MASK", "mask file to write, which must not exist yet")
    parser.add_argument(
        "--bleeds",
        type=Path,
        metavar="FILE",
        help="also write a label map, which must not exist yet: 1 hematoma, 2 blood in the ventricles, 3 blood "
        "outside of the brain, 4 edema, as far as the segmenter tells them apart",
    )
    add_segmenter(parser)
    add_box(parser)
    add_device(parser)
    parser.set_defaults(run=_segment)


def _segment(arguments: argparse.Namespace) -> int:
    from ..anatomy.brain import extract_brain
    from ..anatomy.plausibility import check_plausibility
    from ..anatomy.prompted import check_prompt
    from ..anatomy.scope import notes_on_bleeds
    from ..anatomy.segmentation import find_bleeds
    from ..device import choose_device
    from ..output.findings import findings, likely_text
    from ..scan.head_ct import read_head_ct
    from ..scan.volume_files import check_volume_output, write_volume

    outputs = [path for path in (arguments.output, arguments.bleeds) if path is not None]
    for path in outputs:
        check_volume_output(path)
    segmenter, device = find_segmenter(arguments.segmenter), choose_device(arguments.device)
    box = given_box(arguments)
    check_prompt(segmenter, box)
    with reporting() as progress:
        stages = Stages(progress)
        with stages("read", 0.0):
            scan = read_head_ct(arguments.input)
        with stages("brain", 0.3):
            brain = extract_brain(scan.image)
        with stages("segmentation", 0.6):
            progress_of_stage = stages.within("segmentation", 0.6, 1.0)
            bleeds = find_bleeds(scan.image, brain.mask, segmenter, device, box, progress_of_stage)
            notes = [
                *notes_on_bleeds(bleeds),
                *scan.warnings,
                *check_plausibility(scan, brain, bleeds, drawn=False),
            ]
        restored = bleeds.restored(scan)
        for path, image in zip(outputs, (restored.hematoma.image, restored.labels), strict=False):
            write_volume(image, path)
    for note in notes:
        print(f"Note: {note}")
    volume_ml = bleeds.hematoma.volume_ml
    result = {"baseline": {"volume_ml": volume_ml}, "bleeds": bleeds.described}
    likely = likely_text(result)
    print(f"Hematoma: {volume_ml:.1f} mL{likely and f' ({likely})'}. Research use only.")
    for finding in findings(result):
        print(f"{finding.title}: {finding.value}.")
    return 0


def _add_measure(commands: Commands) -> None:
    parser = add_command(commands, "measure", "print the volume and ABC/2 of a mask as JSON")
    add_input(parser, "MASK", "the hematoma's mask")
    add_label(parser)
    parser.set_defaults(run=_measure)


def _measure(arguments: argparse.Namespace) -> int:
    from ..measures.abc2 import abc2
    from ..scan.mask import Mask
    from ..scan.mask_files import read_mask_volume

    volume = read_mask_volume(arguments.input, arguments.label)
    mask = Mask(volume.image)
    measures = {
        "research_use_only": True,
        "volume_ml": mask.volume_ml,
        **abc2(mask).described,
        "warnings": list(volume.notes),
    }
    print(json.dumps(measures, indent=2))
    return 0
