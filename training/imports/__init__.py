"""From a folder of the Hugging Face layout to an artifact: `unveil import`. Knows no training and no service."""
