"""The growth network: samples, training, calibration, evaluation, and the growth paper's study.

Uses ``training.data``.
"""
