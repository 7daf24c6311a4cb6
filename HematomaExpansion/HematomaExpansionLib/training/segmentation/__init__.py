"""The segmentation networks: training, adaptation, volume correction, evaluation.

Uses ``training.data``.
"""
