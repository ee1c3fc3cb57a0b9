"""Policies of others, trained by our loop on our features and acting in our evaluation.

    baseline           what they share: encoders, normalisers, the drop-out augmentation
    memory             what running episodes keep, and what a flagged source shows
    lock_step          episodes advanced together, chunk after chunk
    lerobot_diffusion  LeRobot's Diffusion Policy
    lerobot_act        LeRobot's ACT
    robomimic_rnn      robomimic's BC-RNN with a Gaussian mixture

A model config with the key `baseline` names one of them, see `policy.construction.build_model`. The
other projects are imported by their adapters only.
"""
