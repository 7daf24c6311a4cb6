"""Training and evaluation of the models, on any cohort in the project's layout.

Uses every room but ``cli``; only ``cli`` may use this one.
"""
