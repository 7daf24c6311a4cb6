"""Measurements on masks: volume in mL, ABC/2, growth and expansion, agreement.

Uses ``scan``; every room above may use it.
"""
