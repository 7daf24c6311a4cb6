"""What is where in the head: the inside of the skull, the hematoma, whether both can be so; registration.

Uses ``scan``, ``measures``, ``models``; the rooms above may use it.
"""
