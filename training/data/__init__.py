"""From a file or a package to a `Dataset`: ids of three splits and their tokenizer."""
