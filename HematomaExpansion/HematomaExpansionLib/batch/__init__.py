"""Many scans: lists, names, rows of the table, workers on one machine or several.

Uses ``output`` and all below it; ``training`` and ``cli`` may use it.
"""
