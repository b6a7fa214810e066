"""`python -m groundup` is the `groundup` command."""

from groundup.cli.main import main

raise SystemExit(main())
