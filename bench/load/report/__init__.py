"""What the load generator reports: terminal, JSON, CSV, HTML."""
