"""What is typed and what is printed: flags, messages, a live line. Knows the terminal and nothing of models."""
