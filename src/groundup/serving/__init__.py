"""A server for trained models: the completions API of the field, and a page that looks inside."""
