"""The command line of pascal-serve. Nothing imports this package."""
