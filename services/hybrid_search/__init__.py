"""hybrid_search: asks dense and sparse retrieval at once and fuses their lists."""
