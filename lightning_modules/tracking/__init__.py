"""What a run leaves in MLflow, and where it came from; what is measured stands in
``evaluation``."""
