"""Engine of HematomaExpansion: prediction of intracerebral hematoma growth from a head CT.

Research software, not for clinical use. Pure Python on SimpleITK, numpy and torch/MONAI; nothing here
imports Slicer. Start reading at ``prediction.py``.
"""

__version__ = "0.1.0"

RESEARCH_USE = "Research use only. Not for diagnosis or treatment."
"""Shown by every panel, report and picture."""
