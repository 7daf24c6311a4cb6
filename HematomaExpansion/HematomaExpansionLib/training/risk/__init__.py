"""The probability of expansion: training of its models, and evaluation beside the scores.

Uses ``training.data``.
"""
