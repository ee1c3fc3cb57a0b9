"""Who may drive: a page in the browser, LeRobot's devices."""
