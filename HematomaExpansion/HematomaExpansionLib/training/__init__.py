"""Training and evaluation of the models, on any cohort in the project's layout.

Uses all but ``cli``; only ``cli`` may use it.
"""
