"""The methods, one file each, and what they share; layers that they train stand in ``networks``,
losses in ``losses``."""
