"""Files and packages to typed examples: loading, formats, templates, masks, collators, preview."""
