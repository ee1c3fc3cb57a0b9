"""Other programs' files as episodes, and episodes as their files.

`episode_stream` says what a converter reads from and writes to; every other module is the adapter
of one format and is named after it. `teleop_data.convert` is the entry point that joins two.
"""
