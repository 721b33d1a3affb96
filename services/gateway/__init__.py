"""gateway: the one way in. Keys, quotas, limits and the web page; the work is done behind it."""
