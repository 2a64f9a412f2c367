"""Objectives on attention maps, for guidance of latents and for training alike: pure functions of
`inputs.ObjectiveInputs` that give one loss for each sample. `table` lists them by name."""
