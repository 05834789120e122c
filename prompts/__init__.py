"""Guidance templates, versioned files with front matter: `prompts/NAME/VERSION.md`."""
