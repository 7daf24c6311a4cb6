"""What a user gets: folders of results, pictures, the report.

Uses the pipelines and all below them; ``batch``, ``training`` and ``cli`` may use it.
"""
