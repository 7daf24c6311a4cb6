"""The segmentation networks: training, adaptation, correction of volumes, evaluation.

Uses ``training.data``.
"""
