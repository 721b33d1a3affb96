"""query_preprocessing: what was typed becomes what is searched for, one reported step at a time."""
