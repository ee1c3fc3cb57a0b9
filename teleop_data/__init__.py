"""Floor 1: what an episode is.

`schema` names what is observed and commanded; `environment` and `teleoperator` say who acts;
`clock` is the only source of time. `recorder` writes whole episodes into a `replay_buffer` (zarr);
`windows` cuts fixed-length slices by index arithmetic, `dataset` serves them, `statistics`
summarises the training episodes.

Entry points: `record` lets somebody drive (`teleoperators`, commanded by an `operator`) on absolute
deadlines, writes behind the loop and keeps a `journal` that a kill cannot take; `convert` copies
between formats (`converters`); `describe` looks at a store, `validate` finds what is wrong with it,
`repair` makes a new one without that, `rerun_export` shows it in the Rerun viewer. `shard_reader`
reads windows past zarr, `remote_store` opens what lies on an object store.

Nothing here imports another package of this project. The modules `schema`, `clock`,
`environment` and `teleoperator` import nothing heavier than numpy, so the robot's side may use
them.
"""
