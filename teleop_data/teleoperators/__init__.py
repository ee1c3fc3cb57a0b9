"""Who may drive: a page in the browser, a terminal's keys, a script, LeRobot's devices."""
