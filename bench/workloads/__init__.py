"""What arrives: arrival processes, lengths, public traces."""
