"""reranking: puts candidate passages in the order of their relevance to a query."""
