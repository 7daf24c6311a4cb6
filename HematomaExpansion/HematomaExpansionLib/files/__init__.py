"""Folders and files on disk: written whole or not at all, with what they were made from.

Uses nothing of the engine but errors; every other room may use it.
"""
