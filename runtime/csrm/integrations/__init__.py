"""csrm inside other frameworks: one module for each, which imports that framework.

Not: the HTTP formats that gateways speak, which `csrm serve` answers (csrm.serve). Each module here
is a thin adapter over `guard.Guard` (in process) or a `Scorer`; nothing else in csrm imports them.
The versions they are tested with are pinned in pyproject.toml's dependency groups
`integration-NAME`; `make test-integrations` makes an environment for each and runs its tests.
"""
