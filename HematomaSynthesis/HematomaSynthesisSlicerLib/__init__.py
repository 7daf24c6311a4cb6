"""What the Slicer module HematomaSynthesis does with the scene; HematomaSynthesisLib does the computing.

Nodes, display and jobs, using only Slicer's MRML libraries; no panel. Built on HematomaSlicerLib, which comes with
the module HematomaExpansion.
"""
