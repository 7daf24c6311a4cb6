"""Where blood goes: from the network to a displacement field, and scan and mask warped by it.

Uses ``scan`` and ``models``; the pipelines and the rooms above them may use it.
"""
