"""What the operations page shows: computed once for all viewers, and only while there are some."""
