"""`python -m npc_local`."""

from npc_local.cli.main import main

if __name__ == "__main__":
    main()
