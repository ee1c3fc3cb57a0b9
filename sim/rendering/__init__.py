"""What cameras see: through OpenGL where it is, else by casting rays.

`camera_renderer` opens one or the other; `gl_drawer` shares one context among the worlds of a
scene; `ray_drawer` needs MuJoCo only.
"""
