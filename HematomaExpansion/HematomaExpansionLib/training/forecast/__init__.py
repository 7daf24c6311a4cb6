"""Fits forecasts: whether hematomas expand and by how much, on tables of patients and on cohorts; measures them.

Uses the rooms below ``training``; ``cli`` may use it.
"""
