"""Networks for measurements."""
