"""What the Slicer module HematomaSynthesis does with the scene; the computing is in HematomaSynthesisLib.

Nodes, display and jobs, on Slicer's MRML libraries alone; no panel. Built on HematomaSlicerLib, which the module
HematomaExpansion brings.
"""
