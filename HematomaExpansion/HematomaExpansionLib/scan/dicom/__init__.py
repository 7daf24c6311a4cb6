"""A DICOM folder: which series to read, whether it is complete, and its pixels at their true position.

Used only by ``scan``.
"""
