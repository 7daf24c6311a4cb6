"""CT markers of expansion, and the scores built from them.

Uses ``scan``; the pipelines and the layers above may use it.
"""
