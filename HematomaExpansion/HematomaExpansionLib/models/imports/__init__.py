"""Model packages from networks that were made and trained elsewhere: BLAST-CT, nnU-Net, bundles of MONAI,
MedSAM.

Weights are read only as far as they hold numbers, and nothing is ever downloaded. Used by ``cli``.
"""
