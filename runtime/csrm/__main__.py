"""`python -m csrm`: the command line."""

from csrm.cli import main

if __name__ == "__main__":
    main()
