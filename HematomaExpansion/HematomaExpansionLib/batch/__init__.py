"""Many scans: lists, names, table rows, workers on one machine or several.

Uses ``output`` and everything below it; ``training`` and ``cli`` may use it.
"""
