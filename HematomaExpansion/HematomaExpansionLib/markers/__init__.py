"""CT markers of expansion, and the scores that are made of them.

Uses ``scan``; the pipelines and what lies above may use it.
"""
