"""The processes of ``pascal bench pacing``, the bytes between them, and what the kernel says."""
