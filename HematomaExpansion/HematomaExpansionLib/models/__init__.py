"""Model packages: their files, their descriptions, and how both are checked.

Uses ``files``; every room above may use it.
"""
