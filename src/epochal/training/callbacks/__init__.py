"""Lightning callbacks of a run: checkpoints, the record in its folder, progress, pictures."""
