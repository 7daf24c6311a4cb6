"""Synthetic training cases: simulated patients. Research software, not for clinical use."""
