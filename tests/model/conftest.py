"""Property tests have no deadline: a time limit on an example says something of the machine's load, not of the code."""

from hypothesis import settings

settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
