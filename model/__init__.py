"""The mathematics and the network. Knows no clock, no environment, no printing and no file's whereabouts."""
