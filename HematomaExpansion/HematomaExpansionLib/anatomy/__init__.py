"""Anatomy of the head: the inside of the skull, the hematoma, whether both are plausible; registration.

Uses ``scan`` and ``models``; the rooms above may use it.
"""
