"""The demo: the whole story on phantoms, from raw volumes to a report, by the commands that a user would type."""
