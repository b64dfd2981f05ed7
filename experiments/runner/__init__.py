"""What runs inside a runner sandbox: ``python -m experiments.runner``.

It asks the Hub for its assignment, lets papermill execute the notebook, says how far it has come, sends the executed
notebook back, and ends. It imports nothing else of the project, so the sandbox needs none of the server's libraries.

The kernel has the runner's own uid and runs code that nobody trusts. So the runner trusts nothing the kernel says, and
nobody trusts what the runner says (``experiments.results``). What a kernel can do to its runner is to end it, which
costs its own run an attempt: the lease passes, and the run is given to another runner. Where the runner is process 1 of
its sandbox, as the engines start it, SIGKILL and SIGSTOP from inside are not even delivered.
"""
