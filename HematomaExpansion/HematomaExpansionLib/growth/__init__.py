"""Where blood goes: from the network to a displacement field, and scan and mask warped by it.

Uses ``scan`` and ``models``; the pipelines and the layers above may use it.
"""
