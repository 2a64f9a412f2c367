"""Settings: what there is to set, where values come from, and what methods, data sets and metrics
declare; nothing heavy is imported here."""
