"""Where blood goes: from the network to a displacement field, and scan and mask moved by it.

Uses ``scan`` and ``models``; the pipelines and what lies above may use it.
"""
