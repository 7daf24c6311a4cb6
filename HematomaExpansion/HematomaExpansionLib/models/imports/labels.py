"""Which of a network's own labels is which kind of blood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...errors import InputError
from ..description import CLASS_NAMES


def labels_from(texts: Sequence[str]) -> dict[str, str]:
    """The options ``--label NAME=KIND``, or ``NAME`` alone for blood of any kind, as label -> kind.

    Raises:
        InputError: there are none, or a kind is unknown.
    """
    known = sorted(name for name in CLASS_NAMES if name not in ("background", "ventricles"))
    kinds = {}
    for text in texts:
        label, _, kind = text.partition("=")
        kinds[label] = kind or (label if label in known else "hemorrhage")
        if kinds[label] not in known:
            raise InputError(f"There is no kind of blood {kind!r}: choose {', '.join(known)}.")
    if not kinds:
        raise InputError(
            "Say which of the network's labels is blood: --label NAME, or --label NAME=KIND with a KIND of "
            f"{', '.join(known)}."
        )
    return kinds


def names_of_outputs(labels: Sequence[str], kinds: Mapping[str, str]) -> list[str]:
    """The name (of ``CLASS_NAMES``) of each output of a network whose own ``labels`` begin with the background.

    Raises:
        InputError: there is no such label, or none of them is blood in the brain.
    """
    unknown = [label for label in kinds if label not in labels[1:]]
    if unknown:
        raise InputError(f"There is no label {unknown[0]!r}: the network has {', '.join(labels[1:])}.")
    if not any(CLASS_NAMES[kind] == 1 for kind in kinds.values()):
        raise InputError("None of the labels is blood in the brain: name it with --label NAME=intraparenchymal.")
    return ["background", *(kinds.get(label, "background") for label in labels[1:])]
