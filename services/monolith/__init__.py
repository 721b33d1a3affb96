"""The lesson-1 monolith: the whole answer pipeline in one script and one process."""
