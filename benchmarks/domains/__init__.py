"""Tables, text, molecules, puzzles, imported models: against rivals and published figures."""
