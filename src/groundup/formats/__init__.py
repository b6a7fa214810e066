"""Documents out of files: what a document is, and how each format of text files is cut and read."""
