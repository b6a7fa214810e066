"""groundup: GPT-2 from the ground up.

`import groundup` is cheap and touches nothing; every room (`groundup.model`, `groundup.training`, ...) is
imported when it is used.
"""

__version__ = "0.1.0"
