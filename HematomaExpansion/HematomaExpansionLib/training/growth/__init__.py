"""The growth network: samples, training, evaluation, and the growth paper's study.

Uses ``training.data``.
"""
