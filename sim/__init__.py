"""Floor 2: worlds to act in. Knows nothing of policies.

    physics --named quantities--> task --observation, reward--> environment --> who acts
                                                 |  perturbation: black, frozen, late, nudged, ...

A physics and a task over it meet in `environment.TaskEnvironment`, which gives them time. There are
two such worlds: `arm`, a Panda over a table, and `planar_arm`, a hand seen from above that `raster`
draws. `push_t` is Push-T through gym-pusht. `tasks` has one file a task; `task_descriptions` knows
what YAMLs say of them; `gymnasium_registration` offers the arm's to gymnasium.

`experts` demonstrate with knowledge that a policy does not have; `demonstrations` gathers what they
do. `perturbations` spoil what is seen, the world or actions, and tell an oracle. `rendering` draws.

Entry points: `generate_demonstrations` records an expert into a replay buffer, `gallery` draws
every task and perturbation for people.
"""
