"""A network together with what its package says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from torch import nn

from ..description import ENSEMBLE, INTENDED_USE, ModelDescription, ModelGrid, Task, TrainingStep
from .build import Ensemble


@dataclass(frozen=True)
class DescribedNetwork:
    """A network with the architecture name and arguments that its package records."""

    network: nn.Module
    architecture: str
    arguments: dict[str, Any]

    def described(
        self,
        name: str,
        task: Task,
        grid: ModelGrid,
        trained_on: tuple[TrainingStep, ...],
        results: Mapping[str, Any],
        settings: Mapping[str, Any] = MappingProxyType({}),
    ) -> ModelDescription:
        """The description of a new model package with this network."""
        return ModelDescription(
            name=name,
            version="1",
            task=task,
            architecture=self.architecture,
            arguments=self.arguments,
            **asdict(grid),
            trained_on=trained_on,
            results=dict(results),
            license="Apache-2.0",
            intended_use=INTENDED_USE[task],
            settings=dict(settings),
        )


def ensemble_of(members: Sequence[nn.Module], architecture: str, arguments: dict[str, Any]) -> DescribedNetwork:
    """Networks of one architecture combined into one that returns their mean; a single network stays itself."""
    if len(members) == 1:
        return DescribedNetwork(members[0], architecture, arguments)
    of_all: dict[str, Any] = {"member": architecture, "arguments": arguments, "count": len(members)}
    ensemble = Ensemble(**of_all)
    ensemble.members = nn.ModuleList(members)
    return DescribedNetwork(ensemble, ENSEMBLE, of_all)
