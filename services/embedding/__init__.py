"""embedding: texts to vectors, for questions while somebody waits and for passages in batch."""
