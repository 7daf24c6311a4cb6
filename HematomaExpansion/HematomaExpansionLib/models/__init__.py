"""Model packages: their files, their descriptions, and how both are checked.

Uses ``files``; all layers above may use it.
"""
