"""Floor 3: close the loop between worlds and policies, over sockets or in virtual time.

    camera process --frames (PUB, newest wins)--> policy server: source_condition -> policy session
    robot process  --wire (DEALER/ROUTER)------->        | plan
      control_loop -> controller -> action_queue <-------'
                          `-> safety -> robot

`wire` and `frames` say what travels. `policy_server` keeps the sockets, `inference_worker` the
thread with the policy, `mailbox` the newest request between them, and `inference_session` one
episode: `source_condition` turns a source that is missing, stale, frozen, covered or strange into a
noise level. On the robot's side `policy_client` stands in for the policy (as any `plan_source`
may), `controller` decides one control step (newest plan from the `action_queue`, old plan
continued, or hold), and `safety` has the last word. Two drivers share that controller:
`control_loop` on a wall clock, behind a `start_gate` that waits for the first plan at rest, and
`virtual_time` in process with an injected delay. `latency`, `control_statistics` and `episode` say
what happened.

`rollout` carries many episodes in lock-step for `evaluate`; `results` sums them up, `video` films
them, `report` puts several evaluations side by side, and `demo` does everything once.
`experiment` evaluates a whole plan of policies and conditions and reports on it; `motion` judges
how the hand moved.

`view` shows an episode live in the browser: `live_view` is the page, `arm_scene` the arm and its
things on it, `plan_waypoints` the plan, `view_panel` words, pictures and buttons.

Entry points: `serve` (policy server), `stream_cameras` (a camera process, fed by one of
`camera_sources`), `run_robot` (the robot's loop); `stop_signal` ends them. What the robot's side
imports knows neither torch, Hydra, zarr, lerobot nor robomimic.
"""
