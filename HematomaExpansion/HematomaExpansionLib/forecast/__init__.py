"""Whether and how much: the probability of expansion, and the range of the follow-up volume.

Uses ``scan`` and ``models``; the pipelines and the layers above may use it.
"""
