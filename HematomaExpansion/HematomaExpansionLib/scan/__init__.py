"""Head CTs in HU, from image files or DICOM, and their masks; grids, resampling, shapes.

Uses ``files``; every room above may use it.
"""
