"""The services of the workshop: one folder, one service, one process, one owner of its data."""
