"""Imports BLAST-CT (Monteiro 2020): DeepMedic, trained on real head CTs of several hospitals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...files.provenance import content_sha256
from ..description import BLAST_CT, LABELS, LEARNED_ELSEWHERE, ModelGrid, TrainingStep, package_name
from ..networks.described import ensemble_of
from ..networks.elsewhere import BlastCT
from ..package import ModelPackage, write_package
from .checkpoints import fill, license_of, read_checkpoint, weight_files

OUTPUTS = ("background", "intraparenchymal", "extraaxial", "edema", "intraventricular")
"""Its outputs in order, as its authors number them."""

TRAINED_ON = "real head CTs of several hospitals (Monteiro 2020)"
"""What its published weights were trained on."""

GRID = ModelGrid((1.0, 1.0, 1.0), (45, 45, 45), (-15.0, 100.0))
"""Voxels of 1 mm; the patches are those of an adaptation."""

_ENDINGS = (".pt", ".torch_model")


def import_blast_ct(paths: Sequence[Path], output: Path, trained_on: str | None = None) -> ModelPackage:
    """A package of one or more weight files of BLAST-CT; the probabilities of several are averaged.

    Args:
        paths: the files, or folders of them.
        output: folder of the package, which gives its name.
        trained_on: what they were trained on, if not as published.

    Raises:
        ModelPackageError: a file is refused, damaged, or holds another network.
        MissingLibraryError: the library blast-ct is not installed.
        InputError: the folder holds something else, or cannot be written.
    """
    name, sources = package_name(output), weight_files(paths, _ENDINGS)
    labels = list(OUTPUTS)
    networks = []
    for source in sources:
        network = BlastCT(labels)
        fill(network.deepmedic, read_checkpoint(source), "BLAST-CT")
        networks.append(network)
    made = ensemble_of(networks, BLAST_CT, {LABELS: labels})
    step = TrainingStep(LEARNED_ELSEWHERE, None, trained_on or TRAINED_ON)
    description = made.described(name, "segmentation", GRID, (step,), {})
    made_from = {"imported": BLAST_CT, "files": [content_sha256(source) for source in sources]}
    return write_package(
        output, description, made.network, made_from, exact=True, license_text=license_of("blast-ct")
    )
