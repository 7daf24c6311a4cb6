"""Folders and files on disk: written whole or not at all, with a record of what they were made from.

Uses only errors from the engine; every other room may use it.
"""
