"""The web pages and their files."""
