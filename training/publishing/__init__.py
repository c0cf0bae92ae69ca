"""Model card, order report and artifact."""
