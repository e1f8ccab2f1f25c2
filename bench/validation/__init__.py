"""``pascal simulate validate`` and ``calibrate``: the simulator against real engines."""
