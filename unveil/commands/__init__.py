"""What the commands do: arguments in, files and lines out."""
