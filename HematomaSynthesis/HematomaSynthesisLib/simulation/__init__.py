"""Simulated patients with an intracerebral hematoma that grows; start reading at ``patient.py``."""
