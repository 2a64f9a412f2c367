"""What plans and runs a sweep: cells and queue, slots and driver, MLflow's side, and what a person sees."""
