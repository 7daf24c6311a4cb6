"""Whether and how much: the probability of expansion, and the distribution of the follow-up volume.

Uses ``files``, ``scan``, ``markers``, ``measures`` and ``models``; the pipelines and the rooms above them may use
it.
"""
