"""Where text comes from: sources of documents."""
