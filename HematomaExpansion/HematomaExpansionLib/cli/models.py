"""The command ``hematoma models``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import ModelPackageError
from ..models.package import DESCRIPTION_FILE, ModelPackage, available_packages, install_package, locate_package
from .options import Commands, add_command


def add_commands(commands: Commands) -> None:
    """Add it to the command line."""
    parser = add_command(commands, "models", "list, show, install or verify model packages")
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    add_command(actions, "list", "list the available models").set_defaults(run=_list_models)
    show = add_command(actions, "show", "print everything a model says about itself")
    show.add_argument("name", metavar="NAME")
    show.set_defaults(run=_show_model)
    install = add_command(actions, "install", "install a model package from a folder")
    install.add_argument("path", type=Path, metavar="PATH")
    install.set_defaults(run=_install_model)
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


def _verify_models(arguments: argparse.Namespace) -> int:
    """Loads every package, so that a weight that does not fit is found too; the first fault ends it."""
    for package in available_packages():
        if isinstance(package, ModelPackageError):
            raise package
        package.check()
        print(f"{package.description.name} {package.description.version}: intact, sha256 {package.sha256}")
    return 0
