"""The growth network: samples, training, calibration, evaluation, the growth paper's study.

Uses ``training.data``.
"""
