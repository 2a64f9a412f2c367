"""One run from its settings to its result: checks, keys, fitting, processes; what is trained stands
in ``methods``."""
