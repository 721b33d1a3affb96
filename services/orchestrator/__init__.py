"""orchestrator: runs the answer pipeline, its deadlines, its retries and its fallbacks."""
