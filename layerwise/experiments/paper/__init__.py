"""The paper's tables and figures, and its theorem."""
