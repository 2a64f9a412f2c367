"""What is looked at and asked of MaskAttn's gates: reasons to close, the oracle, probes and pictures."""
