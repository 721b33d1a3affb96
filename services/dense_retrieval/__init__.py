"""dense_retrieval: the nearest passages by vector, from a Qdrant collection that it owns."""
