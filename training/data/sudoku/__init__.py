"""Sudoku puzzles, made here, with one solution each."""
