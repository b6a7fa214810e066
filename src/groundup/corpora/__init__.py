"""Where text comes from: sources of documents, and the formats of their files."""
