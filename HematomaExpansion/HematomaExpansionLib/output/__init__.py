"""What a user gets: result folders, pictures, the report.

Uses the pipelines and everything below them; ``batch``, ``training`` and ``cli`` may use it.
"""
