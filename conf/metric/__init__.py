"""What metrics declare, a file each: values, labels, units, direction, and when they are measured;
scorers belong in ``lightning_modules.metrics``."""
