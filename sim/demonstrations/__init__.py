"""Demonstrations by script: an expert in its environment, in several processes, into a store.

`demonstrator` gives the demonstration of a seed, `parallel_episodes` has several at work, `store`
goes on where an earlier call was cut off. The entry point is `sim.generate_demonstrations`.
"""
