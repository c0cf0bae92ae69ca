"""Molecules as SMILES: MOSES or a file."""
