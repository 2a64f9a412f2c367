"""Where trials run: ``local`` processes, ``slurm`` jobs or ``ray`` tasks, behind one protocol."""
