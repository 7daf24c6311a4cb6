"""Cohorts on disk: their cases, what is known of them, and the same work on each.

Used by the other rooms of ``training``, which it does not use.
"""
