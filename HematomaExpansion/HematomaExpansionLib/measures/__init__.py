"""What is measured on masks: mL, ABC/2, growth and expansion, agreement.

Uses ``scan``; every room above may use it.
"""
