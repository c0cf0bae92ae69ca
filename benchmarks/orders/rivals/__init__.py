"""Networks that late queries are compared with, and training for a time."""
