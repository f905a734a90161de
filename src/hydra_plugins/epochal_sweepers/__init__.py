"""Hydra finds its plugins in this namespace and nowhere else."""
