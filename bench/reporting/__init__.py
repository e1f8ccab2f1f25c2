"""What all measurements share: outputs, errors."""
