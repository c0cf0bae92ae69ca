"""Recipes, data, the trainer and the evaluation. Meets the service only in an artifact."""
