"""What plans and runs a sweep and shows how far it is; ablations, and what happens inside a trial,
do not belong here."""
