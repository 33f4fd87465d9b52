"""An audit of a venue, out of what it told: rules in breaches.py."""
