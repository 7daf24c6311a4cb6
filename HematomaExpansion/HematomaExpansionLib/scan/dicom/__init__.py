"""A DICOM folder: which series, whether it is whole, and its pixels at their true place.

Used by ``scan`` alone.
"""
