"""The thread that steps canvases: scheduler, models in memory, messages. Knows no HTTP."""
