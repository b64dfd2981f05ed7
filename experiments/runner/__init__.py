"""What runs inside a runner sandbox: ``python -m experiments.runner``.

    runner     holds the token and speaks with the Hub: claims, heartbeats, results. Standard library only
      zygote   has imported everything a run needs, and made a kernel as far as it goes without sockets, threads and
               files (``mould``); started without the token; forks
        worker   one for each run: papermill, in a process of its own, which adopts all orphans below it
          kernel   forked by the worker, or started the ordinary way

It imports nothing else of the project, so the sandbox needs none of the server's libraries.

A kernel has the runner's own uid and runs code that nobody trusts. So the runner takes nothing from a worker but
progress and a result that it passes on unread, and nobody trusts what the runner says (``experiments.results``). What a
kernel can do to its worker or to the zygote is to end them: that fails its own run, and another zygote is started.
Where the runner is process 1 of its sandbox, as the engines start it, SIGKILL and SIGSTOP from inside are not even
delivered.

Runs that share a sandbox (those of one sweep: one agency, one template) share its uid, its limits and its network. Each
has its own session, directories, environment and memory; what one leaves behind is gone before the next begins.
"""
