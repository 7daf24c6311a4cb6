"""From a file or a DICOM study to a head CT in HU, and the masks that lie on it; grids, resampling, shapes.

Uses ``files``; every room above may use it.
"""
