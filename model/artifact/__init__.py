"""The folder that training writes and the engine reads."""
