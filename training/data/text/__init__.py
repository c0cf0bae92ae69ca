"""Texts: files, the King James Version, a text a line, corpora of the `datasets` library."""
