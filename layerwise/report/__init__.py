"""Figures, the report page, and what W&B is told."""
