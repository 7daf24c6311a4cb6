"""The networks that a package may hold, built from MONAI's blocks.

Used through ``models`` and by ``training``.
"""
