"""ingestion: documents in; an API that accepts them and a worker that indexes them."""
