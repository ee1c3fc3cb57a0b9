"""Floor 1: what an episode is.

`schema` names what is observed and commanded; `environment` and `teleoperator` say who acts;
`clock` is the only source of time. `recorder` writes whole episodes into a `replay_buffer` (zarr);
`windows` cuts fixed-length slices by index arithmetic, `dataset` serves them, `statistics`
summarises the training episodes. `describe` is the entry point that looks at a store.

Nothing here imports another package of this project. The modules `schema`, `clock`,
`environment` and `teleoperator` import nothing heavier than numpy, so the robot's side may use
them.
"""
