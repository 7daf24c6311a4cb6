"""The exceptions of the library.

Each carries one plain sentence (or two) that a clinician can act on: what is wrong, and what to do.
The command line prints it, the Slicer panel shows it, a batch table records it. It never contains
a patient's name or a file path.
"""

from __future__ import annotations

import errno
import os


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


_ANOTHER_PLACE = "Choose another place."
_FILE_FAULTS = {
    errno.ENOSPC: ("the disk is full", "Free space, or choose another place."),
    errno.EDQUOT: ("your share of the disk is used up", "Free space, or choose another place."),
    errno.EFBIG: ("a file would be larger than is allowed there", _ANOTHER_PLACE),
    errno.EROFS: ("that place can only be read", _ANOTHER_PLACE),
    errno.EACCES: ("you have no permission there", "Choose another place, or ask for the permission."),
    errno.EPERM: ("that is not permitted there", "Choose another place, or ask for the permission."),
    errno.EBUSY: ("it is in use", "Close the program that uses it, or choose another place."),
    errno.EXDEV: ("the folder lies on two disks", _ANOTHER_PLACE),
    errno.ENAMETOOLONG: ("the name is too long", "Choose a shorter one."),
    errno.EINVAL: ("that disk does not take such a name", "Choose a plain one."),
    errno.EILSEQ: ("that disk does not take such a name", "Choose a plain one."),
    errno.ENOENT: ("a file or folder on the way there is missing", "Check the path."),
    errno.ENOTDIR: ("what should be a folder is a file", "Check the path."),
    errno.EISDIR: ("what should be a file is a folder", "Check the path."),
    errno.EEXIST: ("a file is in the way", "Choose another name."),
    errno.ENOTEMPTY: ("a folder there is not empty", "Choose another name."),
    errno.ELOOP: ("a link there leads in a circle", "Check the path."),
    errno.EMFILE: ("too many files are open", "Close other programs, and try again."),
    errno.ENFILE: ("too many files are open", "Close other programs, and try again."),
    errno.EIO: ("the disk reports a fault", "Choose another place, and have the disk checked."),
    errno.ESTALE: ("the network drive is gone", "Connect it again, or choose another place."),
    errno.ENOTCONN: ("the network drive is gone", "Connect it again, or choose another place."),
    errno.ENODEV: ("the drive is gone", "Connect it again, or choose another place."),
    errno.ENXIO: ("the drive is gone", "Connect it again, or choose another place."),
}


def is_file_fault(error: OSError) -> bool:
    """Whether an operating system error is a file or disk fault for which there is a sentence."""
    return error.errno in _FILE_FAULTS


def file_fault(error: OSError, what: str = "A file could not be read or written") -> InputError:
    """The error for a file or disk fault: ``what`` could not be done, the real reason, and what to do."""
    unnamed = os.strerror(error.errno) if error.errno else "the reason is not known"
    reason, remedy = _FILE_FAULTS.get(error.errno or 0, (unnamed, _ANOTHER_PLACE))
    return InputError(f"{what}: {reason}. {remedy}")
