"""The command ``hematoma models``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import InputError, ModelPackageError
from ..models.description import BLAST_CT, ELSEWHERE, MEDSAM, NNUNET
from ..models.package import DESCRIPTION_FILE, ModelPackage, available_packages, install_package, locate_package
from .model_comparison import add_compare
from .options import Commands, add_command, add_output


def add_commands(commands: Commands) -> None:
    """Add it to the command line."""
    parser = add_command(commands, "models", "list, show, install, verify, import or compare model packages")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    add_command(actions, "list", "list the available models").set_defaults(run=_list_models)
    show = add_command(actions, "show", "print everything a model says about itself")
    show.add_argument("name", metavar="NAME")
    show.set_defaults(run=_show_model)
    install = add_command(actions, "install", "install a model package from a folder")
    install.add_argument("path", type=Path, metavar="PATH")
    install.set_defaults(run=_install_model)
    importing = add_command(actions, "import", "make a model package of a network trained elsewhere")
    importing.add_argument("kind", choices=ELSEWHERE, help="what it is")
    importing.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="its weight files, or their folder")
    add_output(importing, "PACKAGE", "folder of the package, which gives its name")
    importing.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="NAME[=KIND]",
        help="which of its labels is blood, and of which kind (default: any); may be repeated",
    )
    importing.add_argument("--trained-on", metavar="TEXT", help="what it was trained on, in a few words")
    importing.set_defaults(run=_import_model)
    add_compare(actions)
    add_command(actions, "verify", "check that every model is intact").set_defaults(run=_verify_models)


def _list_models(arguments: argparse.Namespace) -> int:
    for package in available_packages():
        if isinstance(package, ModelPackage):
            description = package.description
            kind = f"{description.name} {description.version} ({description.task})"
            print(f"{kind}, trained on {description.training_sources}")
        else:
            print(f"damaged: {package}")
    return 0


def _show_model(arguments: argparse.Namespace) -> int:
    package = locate_package(arguments.name)
    print((package.folder / DESCRIPTION_FILE).read_text(encoding="utf-8"), end="")
    return 0


def _install_model(arguments: argparse.Namespace) -> int:
    package = install_package(arguments.path)
    print(f"Installed {package.description.name} {package.description.version}.")
    return 0


def _import_model(arguments: argparse.Namespace) -> int:
    description = _imported(arguments).description
    print(
        f"Imported {description.name} ({description.training_sources}). Install it with `hematoma models "
        "install`, or name its folder as --segmenter. Research use only."
    )
    return 0


def _imported(arguments: argparse.Namespace) -> ModelPackage:
    from ..models.imports.blast_ct import import_blast_ct
    from ..models.imports.labels import labels_from
    from ..models.imports.medsam import import_medsam
    from ..models.imports.monai_bundle import import_bundle
    from ..models.imports.nnunet import import_nnunet

    if arguments.kind in (BLAST_CT, MEDSAM) and arguments.label:
        raise InputError(f"The labels of {arguments.kind} are known: leave out --label.")
    if arguments.kind == BLAST_CT:
        return import_blast_ct(arguments.paths, arguments.output, arguments.trained_on)
    if arguments.kind == MEDSAM:
        if len(arguments.paths) > 1:
            raise InputError("Name the one checkpoint of MedSAM: several cannot be combined.")
        return import_medsam(arguments.paths[0], arguments.output, arguments.trained_on)
    if len(arguments.paths) > 1:
        raise InputError("Name the one folder of the model: what belongs to it is found there.")
    make = import_nnunet if arguments.kind == NNUNET else import_bundle
    return make(arguments.paths[0], arguments.output, labels_from(arguments.label), arguments.trained_on)


def _verify_models(arguments: argparse.Namespace) -> int:
    """Loads every package, so that a weight that does not fit is found too; the first fault ends it."""
    for package in available_packages():
        if isinstance(package, ModelPackageError):
            raise package
        package.check()
        print(f"{package.description.name} {package.description.version}: intact, sha256 {package.sha256}")
    return 0
