"""CT markers of expansion, and the scores built from them.

Uses ``scan``; the pipelines and the rooms above them may use it.
"""
