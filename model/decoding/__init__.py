"""Canvases, their noise, one step of many, the loop without a server, scoring."""
