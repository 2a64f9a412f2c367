"""Words of captions and what they name: noun phrases, categories, links to masks; no images and no
files here."""
