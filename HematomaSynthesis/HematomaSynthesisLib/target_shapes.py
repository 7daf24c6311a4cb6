"""What a synthetic variant's hematoma should look like: the mask eroded, dilated, or smoothly changed.

Erosion is the growth paper's method (Abramova 2024, section 2.1.2): a random 3×3×3 structuring element, one or two
iterations, and five variants that use no element more than twice. Masks here are Boolean arrays (z, y, x) on a
working grid whose voxels are about equally long in every direction in which masks may shrink.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import combinations

import numpy as np
from HematomaExpansionLib.errors import InputError
from HematomaExpansionLib.scan.grid import Array
from HematomaExpansionLib.scan.shapes import largest_component
from scipy.ndimage import binary_dilation, binary_erosion, distance_transform_edt, gaussian_filter

_AXES = {"x": 2, "y": 1, "z": 0}
_DRAWS = 40
_MIN_VOXELS = 30


class Family(Enum):
    """How a variant's shape is made; the values are the names used on the command line."""

    EROSION = "erosion"
    DILATION = "dilation"
    SHAPE = "shape"


@dataclass(frozen=True)
class TargetOptions:
    """``iterations`` 0 draws one or two. ``max_change``: of the volume, as a fraction."""

    family: Family = Family.EROSION
    iterations: int = 0
    in_plane: bool = False
    max_change: float = 0.4


@dataclass(frozen=True)
class Target:
    """``mask`` (z, y, x) and what made it: a structuring element's name and how often it was applied."""

    mask: Array
    element: str
    iterations: int


def structuring_elements(*, in_plane: bool) -> dict[str, Array]:
    """The family of 3×3×3 elements by name, (z, y, x): the center with every set of its face neighbors, with all
    face and edge neighbors, and with all neighbors."""
    faces = [f"{sign}{axis}" for axis in ("xy" if in_plane else "xyz") for sign in "-+"]
    elements = {}
    for count in range(1, len(faces) + 1):
        for chosen in combinations(faces, count):
            element = np.zeros((3, 3, 3), bool)
            element[1, 1, 1] = True
            for face in chosen:
                index = [1, 1, 1]
                index[_AXES[face[1]]] = 0 if face[0] == "-" else 2
                element[tuple(index)] = True
            elements[" ".join(chosen)] = element
    away = np.abs(np.indices((3, 3, 3)) - 1)
    within = away[0] == 0 if in_plane else np.ones((3, 3, 3), bool)
    if not in_plane:
        elements["edges"] = away.sum(axis=0) <= 2
    elements["all"] = within
    return elements


def draw_targets(mask: Array, count: int, options: TargetOptions, random: np.random.Generator) -> Iterator[Target]:
    """Yield ``count`` different targets, none of which changes the volume by more than the limit.

    An element that would change too much is redrawn; none is used more than twice.

    Raises:
        InputError: the mask is so small that every element removes too much of it.
    """
    if np.count_nonzero(mask) < _MIN_VOXELS:
        raise InputError("The hematoma is too small to change: choose one with more voxels.")
    elements = structuring_elements(in_plane=options.in_plane)
    used: Counter[str] = Counter()
    made: list[Array] = []
    for _ in range(count):
        target = _draw(mask, elements, used, made, options, random)
        used[target.element] += 1
        made.append(target.mask)
        yield target


def _draw(
    mask: Array,
    elements: dict[str, Array],
    used: Counter[str],
    made: list[Array],
    options: TargetOptions,
    random: np.random.Generator,
) -> Target:
    names, volume = list(elements), np.count_nonzero(mask)
    for attempt in range(_DRAWS):
        name = names[random.integers(len(names))]
        # Two iterations may be too many for a small hematoma: then one is tried more and more often.
        twice = random.random() < 0.5 * (1 - attempt / _DRAWS)
        iterations = options.iterations or (2 if twice else 1)
        if options.family is not Family.SHAPE and used[name] >= 2:
            continue
        changed = _changed(mask, elements[name], iterations, options, random)
        change = abs(np.count_nonzero(changed) / volume - 1)
        if change <= options.max_change and not any(np.array_equal(changed, other) for other in [mask, *made]):
            return Target(changed, "smooth noise" if options.family is Family.SHAPE else name, iterations)
    raise InputError(
        f"Every change alters this small hematoma by more than {options.max_change:.0%}: choose a larger one, "
        "or allow a larger change."
    )


def _changed(
    mask: Array, element: Array, iterations: int, options: TargetOptions, random: np.random.Generator
) -> Array:
    if options.family is Family.EROSION:
        # What an erosion cuts off is too small to be followed.
        return largest_component(binary_erosion(mask, element, iterations))
    if options.family is Family.DILATION:
        return binary_dilation(mask, element, iterations)
    inside, outside = distance_transform_edt(mask), distance_transform_edt(~mask)
    noise = gaussian_filter(random.normal(size=mask.shape), (0.0 if options.in_plane else 4.0, 4.0, 4.0))
    return largest_component(inside - outside + iterations * noise / noise.std() > 0)
