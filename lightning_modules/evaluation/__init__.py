"""One evaluation for all methods: prompts, images, scores, diagnostics and figures; what a number
means stands in ``metrics``."""
