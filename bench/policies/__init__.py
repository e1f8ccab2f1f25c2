"""``pascal bench scheduler``: the scheduling policies on modelled and on real engines."""
