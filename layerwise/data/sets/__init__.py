"""The data sets, one file each: a function that reads one, marked with its name."""
