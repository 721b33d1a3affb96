"""The workshop's command line, and the library that notebooks use."""
