"""A Franka Panda over a table, in MuJoCo.

    panda, table --model--> physics --named quantities--> environment (features, rate) --> who acts
                              |  actions: what they mean;  inverse_kinematics: joints for a pose
                              |  gripper, hand_contacts: fingers, and what they touch
                              '- views: pictures;  disturbances: what perturbations may change

A task (`sim.tasks`) puts things on the table and says how it is demonstrated, by `waypoints`.
`reaction_time` measures how soon a hand follows a thing that moves.
"""
