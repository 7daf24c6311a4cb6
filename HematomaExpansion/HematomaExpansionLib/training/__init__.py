"""Training and evaluation of the models, on any cohort that lies on disk in the project's layout."""
