"""Floor 2: worlds to act in. Knows nothing of policies.

`planar_arm` (physics: named quantities) and `tasks/pick_place` (start, observation, reward) meet in
`environment.TaskEnvironment`, which gives them time; `raster` draws what the camera sees. `push_t`
is Push-T through gym-pusht. `experts` demonstrate with knowledge that a policy does not have;
`perturbations` spoil what sources deliver (`corruptions` says how) and tell an oracle.
`generate_demonstrations` is the entry point that records an expert into a replay buffer.

    physics --named quantities--> task --observation, reward--> environment --> who acts
                                                 |  perturbation: black, frozen, late, ...
"""
