"""One evaluation for all methods: prompts, images, scores, diagnostics and figures; what a number
means belongs in ``metrics``, training does not belong here."""
