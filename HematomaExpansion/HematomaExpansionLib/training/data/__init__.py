"""Cohorts on disk: their cases, the cases' descriptions, and the same work done on each case.

The other rooms of ``training`` use it; it uses none of them.
"""
