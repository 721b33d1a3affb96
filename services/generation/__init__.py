"""generation: one chat API over many LLM providers, with versioned prompts and a prompt cache."""
