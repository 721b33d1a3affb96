"""sparse_retrieval: the best passages by BM25, from an index that it keeps on disk."""
