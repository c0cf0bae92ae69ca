"""What training minimises: objective, prefixes, baselines, the critic of global orders."""
