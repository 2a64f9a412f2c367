"""Reports of sweeps, made from MLflow alone; nothing here runs a trial or imports the project."""
