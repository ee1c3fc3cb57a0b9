"""Scripted demonstrators. They read the simulator's quantities, which no policy may."""
