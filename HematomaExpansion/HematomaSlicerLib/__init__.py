"""What both Slicer modules share: panels, nodes, background work, installation.

Runs inside 3D Slicer. Files that need only Slicer's MRML libraries are tested without the application.
"""
