"""The data of the public API: request bodies, events and errors. No I/O."""
