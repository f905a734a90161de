"""Weights that others have trained, under our parameter names; one file a source."""
