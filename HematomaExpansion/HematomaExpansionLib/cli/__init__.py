"""The command line, one file for each group of commands.

Uses everything; nothing uses it but Slicer, which starts its worker.
"""
