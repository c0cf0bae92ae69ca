"""The tests marked `gpu`, and the same bodies on the CPU in small."""
