"""context_aggregation: turns ranked passages into a short, numbered context for the prompt."""
