"""Everything a run can be told, as plain frozen dataclasses; nothing here imports more than the standard library."""
