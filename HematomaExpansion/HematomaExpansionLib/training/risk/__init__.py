"""The probability of expansion: training of its models, and comparison with volume and BAT score.

Uses ``training.data``.
"""
