"""Settings of all tests."""

from hypothesis import settings

# No deadline an example: the machine may be busy with something else.
settings.register_profile("forcing", deadline=None)
settings.load_profile("forcing")
