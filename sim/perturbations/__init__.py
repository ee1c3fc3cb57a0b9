"""What goes wrong: with sources, with the world, with actions; for a while, and with the truth.

`kinds` makes one by its name; `conditions` are the named ones of an experiment, a YAML each.
`environment.PerturbedEnvironment` puts them around any Environment and tells the truth.

    action --action_latency--> world (world) --observation--> sources (corruptions) --> who acts
                               all of them within a window, which may wait for contact
"""
