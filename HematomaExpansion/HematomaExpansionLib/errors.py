"""The exceptions of the library.

Each carries one plain sentence (or two) that a clinician can act on: what is wrong, and what to do.
The command line prints it, the Slicer panel shows it, a batch table records it. It never contains
a patient's name or a file path.
"""

from __future__ import annotations


class HematomaError(Exception):
    """Anything this library refuses to do; ``str(error)`` is the sentence to show."""


class InputError(HematomaError):
    """The scan, the mask or another argument is at fault."""


class ModelPackageError(HematomaError):
    """A model package is missing, damaged, or does not fit this version."""


class MissingLibraryError(HematomaError):
    """A library that this step needs is not installed."""


class DeviceError(HematomaError):
    """The computing device is absent or out of memory."""
