"""Model packages: on disk, what they say of themselves, and how they are checked.

Uses ``files``; every room above may use it.
"""
